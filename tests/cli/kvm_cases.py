"""`--guest kvm`: a virtual machine moves, its arrival is judged, and a host without KVM says so."""
import os

FAULTS = ["drop-dirty-bit", "swap-pages", "stale-page", "lose-extent", "old-device-state"]
KVM = ["--guest", "kvm"]


def why_not(t):
    """Why there can be no KVM guest here; None when there can."""
    answer = t.tool.run("demo", *KVM, "--ram", "1M", "--dirty-rate", "0")
    return answer.errors[0] if answer.code == 1 and answer.errors and "/dev/kvm" in answer.errors[0] else None


def needs_kvm(case):
    def run(t):
        reason = why_not(t)
        if reason:
            return t.skip("needs KVM", reason)
        return case(t)
    run.__name__ = case.__name__
    return run


def verified(answer):
    return answer.code == 0 and not answer.errors and (answer.json or {}).get("verified") is True


@needs_kvm
def a_kvm_guest_moves(t):
    answer = t.tool.run("demo", *KVM, "--ram", "256M", "--dirty-rate", "100M", "--channels", "4", "--json")
    report = answer.json or {}
    t.expect(verified(answer) and len(report.get("channels", [])) == 4, "256M, four channels: verified", answer)
    guest = report.get("guest", {})
    t.expect(guest.get("type") == "kvm" and guest.get("cpus") == 2, "the report says what moved", answer)
    gap = report.get("guest-gap")
    t.expect(isinstance(gap, int) and gap < 10000, "the guest's own clock saw the pause", answer)
    t.expect("single" not in (report.get("verify-desc") or ""), "no rule was broken", answer)


@needs_kvm
def every_kind_of_kvm_guest_moves(t):
    kinds = {
        "one processor": ["--cpus", "1"],
        "many processors": ["--cpus", "9"],
        "a guest that only asks": ["--dirty-rate", "0"],
        "zero pages": ["--pattern", "zero", "--dirty-rate", "20M"],
        "mixed pages": ["--pattern", "mixed"],
        "anonymous memory": ["--backing", "anon"],
        "over a Unix socket": ["--transport", "unix"],
        "several passes": ["--max-bandwidth", "150M", "--dirty-rate", "60M", "--downtime-limit", "20"],
        "the smallest": ["--ram", "24K", "--dirty-rate", "1M"],
    }
    for name, words in kinds.items():
        ram = [] if "--ram" in words else ["--ram", "48M"]
        rate = [] if "--dirty-rate" in words else ["--dirty-rate", "40M"]
        answer = t.tool.run("demo", "--json", *KVM, *ram, *rate, *words)
        t.expect(verified(answer), name, answer)


@needs_kvm
def every_fault_planted_on_a_kvm_guest_is_found(t):
    # Many processors: their runs of pages share records, which lose-extent needs.
    for fault in FAULTS:
        answer = t.tool.run("demo", *KVM, "--cpus", "16", "--ram", "64M", "--dirty-rate", "100M", "--json",
                            "--max-bandwidth", "200M", "--x-fault", fault)
        report = answer.json or {}
        t.expect(answer.code == 1 and report.get("status") == "completed" and report.get("verified") is False,
                 f"{fault}: completed, not verified, exit 1", answer)
        text = report.get("verify-desc") or ""
        if fault == "old-device-state":
            t.expect("counters" in text and "memory says" in text, f"{fault}: registers and memory disagree", answer)
        elif fault != "swap-pages":
            t.expect("pages differ" in text and "single-step rule" in text, f"{fault}: by hash and by rule", answer)


@needs_kvm
def a_kvm_guest_is_received_and_runs_on(t):
    receiver, uri = t.tool.recv("--once", *KVM, "--json")
    sent = t.tool.run("send", uri or "tcp:127.0.0.1:1", *KVM, "--ram", "32M", "--dirty-rate", "40M", "--cpus", "3")
    got = receiver.end()
    t.expect(sent.code == 0 and got.code == 0, "both exit 0", sent, got)
    wrote = [line for line in got.err.splitlines() if "ran on and wrote" in line]
    t.expect(wrote and " 0 pages" not in wrote[0], "it runs on there", got)
    t.expect((got.json or {}).get("guest", {}).get("type") == "kvm", "recv says what came", got)


@needs_kvm
def a_kvm_guest_is_no_process_guest(t):
    for mine, theirs in (("kvm", "process"), ("process", "kvm")):
        receiver, uri = t.tool.recv("--once", "--guest", theirs)
        sent = t.tool.run("send", uri or "tcp:127.0.0.1:1", "--guest", mine, "--ram", "16M", "--dirty-rate", "1M")
        got = receiver.end()
        safe = len(sent.errors) == 1 and "runs on at the source" in sent.errors[0]
        t.expect(sent.code == 1 and got.code == 1 and safe, f"{mine} to {theirs}: refused, safe", sent, got)


@needs_kvm
def a_kvm_guest_that_stays_runs_on(t):
    sender = t.tool.run("send", "unix:" + str(t.scratch / "nobody"), *KVM, "--ram", "16M", "--dirty-rate", "10M",
                        "--connect-timeout", "300ms")
    t.expect(sender.code == 1 and len(sender.errors) == 1 and "runs on at the source" in sender.errors[0],
             "nobody listens", sender)
    running = t.tool.start("demo", *KVM, "--ram", "128M", "--max-bandwidth", "10M", "--json")
    running.wait_for(r"active")
    running.signal()
    answer = running.end(15)
    t.expect(answer.code == 1 and (answer.json or {}).get("status") == "cancelled" and len(answer.errors) == 1 and
             "runs on at the source" in answer.errors[0], "cancelled in the first pass", answer)


def a_host_without_kvm_says_so(t):
    if os.geteuid() != 0:
        return t.skip("a host without KVM", "hiding /dev/kvm needs root")
    godwit = str(t.tool.path)
    hide = ["-m", "sh", "-c", 'mount -t tmpfs tmpfs /dev && exec "$0" "$@"']
    t.tool.path = "unshare"
    try:
        for words in (["demo"], ["send", "tcp:127.0.0.1:1"], ["recv", "tcp:127.0.0.1:0"]):
            name = words[0]
            answer = t.tool.run(*hide, godwit, *words, *KVM)
            if "unshare" in answer.err or "mount" in answer.err:
                t.skip(f"{name} without KVM", answer.err.strip())
                continue
            parts = ("--guest kvm", "/dev/kvm", "load")
            good = len(answer.errors) == 1 and all(part in answer.errors[0] for part in parts)
            t.expect(answer.code == 1 and good, f"{name}: one line with cause and remedy", answer)
    finally:
        t.tool.path = godwit


CASES = [a_kvm_guest_moves, every_kind_of_kvm_guest_moves, every_fault_planted_on_a_kvm_guest_is_found,
         a_kvm_guest_is_received_and_runs_on, a_kvm_guest_is_no_process_guest, a_kvm_guest_that_stays_runs_on,
         a_host_without_kvm_says_so]
