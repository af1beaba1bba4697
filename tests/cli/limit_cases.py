"""Migrations that cannot be: each fails on both sides with one line, and the guest runs on at the source."""
import os
import resource
import signal
import socket
import subprocess
import time

MIB = 1 << 20
SAFE = "runs on at the source"


def failed(answer, *words):
    """Exit 1 and one line that has all the words."""
    return answer.code == 1 and len(answer.errors) == 1 and all(word in answer.errors[0] for word in words)


def channel_counts_must_match(t):
    running, uri = t.tool.recv("--once", "--discard", "--channels", "4")
    sent = t.tool.run("send", uri or "tcp:127.0.0.1:1", "--ram", "16M", "--channels", "8", "--json")
    got = running.end()
    t.expect(failed(sent, "4", "8", SAFE), "the source says so in one line", sent)
    t.expect((sent.json or {}).get("status") == "failed" and "error-desc" in sent.json, "and in its object", sent)
    t.expect(failed(got, "4", "8"), "the destination says so in one line", got)


def a_port_in_use_is_refused(t):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = t.tool.run("recv", f"tcp:127.0.0.1:{taken.getsockname()[1]}", "--once", limit=10)
    t.expect(failed(answer, "in use"), "one line, exit 1", answer)


def a_host_that_does_not_answer_is_given_up(t):
    with socket.socket() as closed:  # bound and not listening: nobody else gets the port, and it refuses
        closed.bind(("127.0.0.1", 0))
        begin = time.monotonic()
        answer = t.tool.run("send", f"tcp:127.0.0.1:{closed.getsockname()[1]}", "--ram", "16M", "--dirty-rate", "10M",
                            "--connect-timeout", "500ms", "--json", limit=20)
        span = time.monotonic() - begin
    t.expect(failed(answer, SAFE) and (answer.json or {}).get("status") == "failed", "one line, exit 1", answer)
    t.expect(span < 5, f"within its time: {span:.1f} s", answer)
    answer = t.tool.run("send", f"unix:{t.scratch}/nobody", "--ram", "16M", "--connect-timeout", "300ms", limit=20)
    t.expect(failed(answer, SAFE), "a Unix socket that is not there", answer)


def a_full_disk_fails_the_migration(t):
    folder = t.scratch / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        return t.skip("a dump on a full tmpfs", "mounting a tmpfs needs root")
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], stderr=subprocess.PIPE,
                           text=True)
    if mount.returncode != 0:
        return t.skip("a dump on a full tmpfs", "mount: " + mount.stderr.strip())
    try:
        for words in ([], ["--prealloc"]):
            running, uri = t.tool.recv("--once", "--dump", folder / "dump", *words)
            sent = t.tool.run("send", uri or "tcp:127.0.0.1:1", "--ram", "64M", "--dirty-rate", "10M")
            got = running.end()
            name = "a full tmpfs" + "".join(f", {word}" for word in words)
            t.expect(failed(sent, SAFE), f"{name}: the source's guest is safe", sent)
            t.expect(failed(got), f"{name}: the destination says so and does not crash", got)
            t.expect(not list(folder.iterdir()), f"{name}: nothing is left there", got)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def too_little_address_space_fails_the_migration(t):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (768 * MIB, 768 * MIB))
    running, uri = t.tool.recv("--once", preexec=limit)
    sent = t.tool.run("send", uri or "tcp:127.0.0.1:1", "--ram", "2G", "--pattern", "zero", "--dirty-rate", "10M")
    got = running.end()
    t.expect(uri and failed(sent, SAFE), "the source's guest is safe", sent)
    t.expect(failed(got, "address space"), "the destination names the limit", got)


def start_slow_pair(t, *words):
    """A rate-limited migration in the middle of its first pass: (recv, send)."""
    receiver, uri = t.tool.recv("--once", "--dump", t.scratch / "dump", "--json")
    sender = t.tool.start("send", uri or "tcp:127.0.0.1:1", "--ram", "128M", "--dirty-rate", "10M", "--json",
                          "--max-bandwidth", "10M", *words)
    sender.wait_for(r"active")
    return receiver, sender


def the_source_can_be_interrupted(t):
    for number in (signal.SIGINT, signal.SIGTERM):
        receiver, sender = start_slow_pair(t)
        begin = time.monotonic()
        sender.signal(number)
        sent, got = sender.end(15), receiver.end(15)
        span = time.monotonic() - begin
        name = signal.Signals(number).name
        t.expect(failed(sent, SAFE) and (sent.json or {}).get("status") == "cancelled", f"{name}: cancelled", sent)
        t.expect(failed(got) and not list(t.scratch.glob("dump*")), f"{name}: the destination keeps nothing", got)
        t.expect(span < 5, f"{name}: soon, {span:.1f} s")


def the_destination_can_be_interrupted(t):
    receiver, sender = start_slow_pair(t)
    receiver.signal(signal.SIGINT)
    got, sent = receiver.end(15), sender.end(15)
    t.expect(failed(got) and (got.json or {}).get("status") == "cancelled", "recv: cancelled", got)
    t.expect(failed(sent, SAFE), "the source's guest is safe", sent)
    t.expect(not list(t.scratch.glob("dump*")), "no dump is left")


def an_idle_destination_can_be_interrupted(t):
    for words, code in ((["--once"], 1), ([], 0)):
        running, uri = t.tool.recv("--discard", *words)
        running.signal(signal.SIGINT)
        got = running.end(10)
        t.expect(uri and got.code == code, f"{' '.join(words) or 'a service'}: exit {code}", got)


def a_destination_that_dies_is_noticed(t):
    receiver, sender = start_slow_pair(t)
    receiver.signal(signal.SIGKILL)
    begin = time.monotonic()
    sent = sender.end(30)
    receiver.end()
    t.expect(failed(sent, SAFE) and time.monotonic() - begin < 10, "the source's guest is safe, soon", sent)


def a_destination_that_hangs_is_noticed(t):
    receiver, sender = start_slow_pair(t, "--peer-timeout", "1s", "--heartbeat-interval", "100ms")
    receiver.signal(signal.SIGSTOP)
    sent = sender.end(30)
    receiver.signal(signal.SIGKILL)
    receiver.end()
    t.expect(failed(sent, SAFE), "the source's guest is safe", sent)


def a_dump_that_cannot_be_is_refused(t):
    running, uri = t.tool.recv("--once", "--dump", t.scratch / "no" / "such" / "folder")
    if uri:
        sent = t.tool.run("send", uri, "--ram", "16M")
        t.expect(failed(sent, SAFE), "the source's guest is safe", sent)
    got = running.end(15)
    t.expect(got.code in (1, 2) and len(got.errors) == 1 and "folder" in got.errors[0], "no such folder", got)


CASES = [channel_counts_must_match, a_port_in_use_is_refused, a_host_that_does_not_answer_is_given_up,
         a_full_disk_fails_the_migration, too_little_address_space_fails_the_migration, the_source_can_be_interrupted,
         the_destination_can_be_interrupted, an_idle_destination_can_be_interrupted,
         a_destination_that_dies_is_noticed, a_destination_that_hangs_is_noticed, a_dump_that_cannot_be_is_refused]
