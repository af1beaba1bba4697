"""`godwit demo`: it proves a good migration, finds every planted fault, and ends cleanly when it is interrupted."""
import os
import signal
import time
from pathlib import Path

from tool import Tool, become_nobody, public_copy

SMALL = ["--ram", "64M", "--dirty-rate", "50M"]
TRACKERS = ["scan", "fault"]
FAULTS = ["drop-dirty-bit", "swap-pages", "stale-page", "lose-extent", "old-device-state"]
RAM_KEYS = {"transferred", "remaining", "total", "duplicate", "normal", "normal-bytes", "dirty-pages-rate", "mbps",
            "pages-per-second", "dirty-sync-count", "page-size", "multifd-bytes", "precopy-bytes", "downtime-bytes"}
CHANNEL_KEYS = {"id", "bytes", "inline-bytes", "placed-bytes", "normal", "duplicate", "packets", "busy-share",
                "replacements", "device", "queue-pair", "tls-version", "tls-cipher", "tls-kernel"}


def proves_a_good_migration(t):
    for transport in ("tcp", "unix"):
        answer = t.tool.run("demo", *SMALL, "--transport", transport)
        good = answer.code == 0 and "completed" in answer.out and "identical" in answer.out and not answer.errors
        t.expect(good, f"over {transport}", answer)
    leftovers = list(Path("/tmp").glob("godwit-demo-*"))
    t.expect(not leftovers, "the socket's folder is gone", *map(str, leftovers))


def prints_one_object(t):
    answer = t.tool.run("demo", *SMALL, "--json")
    report = answer.json or {}
    t.expect(answer.code == 0 and report, "--json parses, alone on stdout", answer)
    t.expect(report.get("status") == "completed" and report.get("verified") is True, "completed and verified", answer)
    t.expect("error-desc" not in report, "no error-desc", answer)
    numbers = ["total-time", "setup-time", "downtime", "expected-downtime", "verify-time"]
    t.expect(all(isinstance(report.get(name), int) for name in numbers), "times are whole milliseconds", answer)
    gap = report.get("guest-gap")
    t.expect(isinstance(gap, int) and gap < 10000, "the guest's own clock saw the pause", answer)
    t.expect(set(report.get("ram", {})) == RAM_KEYS, "ram has QEMU's fields", answer)
    t.expect(report.get("ram", {}).get("total") == 64 << 20, "ram.total is the guest's memory", answer)
    t.expect(report.get("ram", {}).get("remaining") == 0, "nothing remains", answer)
    channels = report.get("channels", [])
    t.expect(len(channels) == 4 and all(set(channel) == CHANNEL_KEYS for channel in channels), "four channels", answer)
    t.expect(report.get("guest", {}).get("dirty-rate-target") == 50 << 20, "guest says what was asked for", answer)


def migrates_every_kind_of_guest(t):
    kinds = {
        "idle": ["--guest", "idle"],
        "zero pages": ["--pattern", "zero"],
        "mixed pages": ["--pattern", "mixed"],
        "anonymous memory": ["--backing", "anon"],
        "a process that writes nothing": ["--dirty-rate", "0"],
        "one page": ["--ram", "4096", "--dirty-rate", "0", "--hot-set", "4096"],
        "one channel": ["--channels", "1"],
        "more channels than work": ["--channels", "32"],
        "detection of zero pages off": ["--zero-page-detection", "none"],
    }
    for name, words in kinds.items():
        ram = [] if "--ram" in words else ["--ram", "64M"]
        answer = t.tool.run("demo", "--json", *ram, *words)
        t.expect(answer.code == 0 and (answer.json or {}).get("verified") is True, name, answer)


def migrates_a_guest_from_a_file(t):
    path = t.scratch / "memory"
    path.write_bytes(os.urandom(8 << 20))
    for words in (["--guest", "idle"], ["--dirty-rate", "20M"], ["--ram", "16M"]):
        answer = t.tool.run("demo", "--json", "--memory-from", path, *words)
        t.expect(answer.code == 0 and (answer.json or {}).get("verified") is True, " ".join(words), answer)


def finds_every_planted_fault(t):
    for fault in FAULTS:
        # Slow enough for a second pass of scattered pages: some faults need pages that are sent again.
        answer = t.tool.run("demo", "--ram", "64M", "--dirty-rate", "30M", "--max-bandwidth", "200M", "--json",
                            "--x-fault", fault)
        report = answer.json or {}
        t.expect(answer.code == 1 and report.get("status") == "completed" and report.get("verified") is False,
                 f"{fault}: completed, not verified, exit 1", answer)
        text = report.get("verify-desc") or ""
        told = "counters" in text if fault == "old-device-state" else "pages differ" in text and "first is page" in text
        t.expect(told and len(answer.errors) == 1 and text in answer.errors[0], f"{fault}: says what differs", answer)
    answer = t.tool.run("demo", *SMALL, "--x-fault", "none")
    t.expect(answer.code == 0, "none: verified", answer)


def tracked(t, tracker, *words, tool=None, **how):
    """A demo with that tracker; None where this kernel or this user has no such tracker, which has been reported."""
    answer = (tool or t.tool).run("demo", "--json", "--tracker", tracker, *words, **how)
    if answer.code == 1 and any("dirty tracking" in line or "userfaultfd is not allowed" in line for line in answer.errors):
        t.skip(f"{tracker} {' '.join(words)}", answer.errors[0])
        return None
    return answer


def is_good(answer, tracker):
    report = answer.json or {}
    return (answer.code == 0 and report.get("verified") is True and not answer.errors
            and report.get("guest", {}).get("tracker") == tracker)


def tracks_writes_either_way(t):
    for tracker in TRACKERS:
        for words in (["--transport", "tcp"], ["--transport", "unix"], ["--backing", "anon"],
                      ["--backing", "anon", "--pattern", "mixed", "--zero-page-detection", "none"],
                      ["--dirty-rate", "0"], ["--dirty-rate", "2G"]):
            answer = tracked(t, tracker, *SMALL[:2], *(words if "--dirty-rate" in words else SMALL[2:] + words))
            if answer:
                t.expect(is_good(answer, tracker), f"{tracker} {' '.join(words)}", answer)
    answer = t.tool.run("demo", "--json", *SMALL)
    chosen = (answer.json or {}).get("guest", {}).get("tracker")
    t.expect(answer.code == 0 and chosen in TRACKERS, f"auto: {chosen}", answer)
    answer = t.tool.run("demo", "--json", *SMALL[:2], "--guest", "idle")
    t.expect((answer.json or {}).get("guest", {}).get("tracker", "") is None, "idle: none", answer)


def finds_a_fault_planted_under_either_tracker(t):
    for tracker in TRACKERS:
        answer = tracked(t, tracker, "--ram", "64M", "--dirty-rate", "100M", "--hot-set", "4M", "--max-bandwidth", "200M",
                         "--x-fault", "drop-dirty-bit")
        if answer:
            report = answer.json or {}
            t.expect(answer.code == 1 and report.get("status") == "completed" and report.get("verified") is False,
                     f"{tracker}: not verified", answer)


def needs_no_privileges(t):
    if os.geteuid() != 0:
        t.skip("as a normal user", "only root can become somebody else; the other cases ran without privileges")
        return
    if t.tool.preexec:
        t.skip("as a normal user", "all of this run is")
        return
    tool = Tool(public_copy(t.tool.path, t.scratch), preexec=become_nobody)
    try:
        for tracker in TRACKERS:
            for backing in ("memfd", "anon"):
                answer = tracked(t, tracker, *SMALL, "--backing", backing, tool=tool)
                if answer:
                    t.expect(is_good(answer, tracker), f"{tracker}, {backing}", answer)
    finally:
        tool.clean_up()


def shares_the_work_between_channels(t):
    answer = t.tool.run("demo", "--ram", "512M", "--channels", "4", "--dirty-rate", "0", "--json")
    sent = [channel["bytes"] for channel in (answer.json or {}).get("channels", [])]
    t.expect(len(sent) == 4 and min(sent) >= 0.1 * sum(sent), f"each carries a tenth or more: {sent}", answer)


def keeps_to_a_bandwidth(t):
    answer = t.tool.run("demo", "--ram", "64M", "--dirty-rate", "0", "--max-bandwidth", "64M", "--json")
    report = answer.json or {"total-time": 0, "setup-time": 0}
    span = report["total-time"] - report["setup-time"]
    # The last 0.3 s worth, downtime-limit's, goes in the stop phase and is not limited.
    t.expect(answer.code == 0 and 500 <= span <= 1500, f"64M at 64M/s take about a second, not {span} ms", answer)


def prints_plain_lines_to_a_pipe(t):
    answer = t.tool.run("demo", "--ram", "96M", "--dirty-rate", "0", "--max-bandwidth", "40M")
    lines = [line for line in answer.err.splitlines() if "%" in line]
    t.expect(answer.code == 0 and len(lines) >= 2, "at least one line a second", answer)
    t.expect("\r" not in answer.err and "\033" not in answer.err, "without control characters", answer)
    words = ("remaining", "pass", "dirty", "downtime", "left")
    t.expect(lines and all(word in lines[-1] for word in words), "with all figures", answer)


def children(pid):
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def start_slow(t, *words):
    """A demo in the middle of its first pass, and the process of its destination."""
    running = t.tool.start("demo", "--ram", "256M", "--max-bandwidth", "10M", "--json", *words, group=True)
    running.wait_for(r"active")
    return running, children(running.process.pid)


def ends_cleanly_on_ctrl_c(t):
    for group in (True, False):
        running, destination = start_slow(t, "--transport", "unix")
        running.signal(signal.SIGINT, group=group)
        answer = running.end(15)
        who = "the group" if group else "the source alone"
        t.expect(answer.code == 1 and (answer.json or {}).get("status") == "cancelled", f"SIGINT to {who}", answer)
        t.expect(len(answer.errors) == 1, f"SIGINT to {who}: one line", answer)
        t.expect(destination and not any(map(is_alive, destination)), f"SIGINT to {who}: no process is left", answer)
    t.expect(not list(Path("/tmp").glob("godwit-demo-*")), "no socket is left")


def says_when_the_destination_crashes(t):
    running, destination = start_slow(t)
    for pid in destination:
        os.kill(pid, signal.SIGKILL)
    answer = running.end(30)
    t.expect(answer.code == 1 and (answer.json or {}).get("status") == "failed", "exit 1, failed", answer)
    t.expect(len(answer.errors) == 1 and "killed by signal 9" in answer.errors[0]
             and "runs on at the source" in answer.errors[0], "names the signal and the guest's fate", answer)


def takes_the_destination_with_it(t):
    running, destination = start_slow(t)
    running.signal(signal.SIGKILL)
    running.end(5)
    deadline = time.monotonic() + 5
    while any(map(is_alive, destination)) and time.monotonic() < deadline:
        time.sleep(0.01)
    t.expect(destination and not any(map(is_alive, destination)), "a killed demo leaves no process")


CASES = [proves_a_good_migration, prints_one_object, migrates_every_kind_of_guest, migrates_a_guest_from_a_file,
         finds_every_planted_fault, tracks_writes_either_way, finds_a_fault_planted_under_either_tracker,
         needs_no_privileges, shares_the_work_between_channels, keeps_to_a_bandwidth,
         prints_plain_lines_to_a_pipe, ends_cleanly_on_ctrl_c, says_when_the_destination_crashes,
         takes_the_destination_with_it]
