"""`send` to `recv`: what arrives is what was sent, byte by byte, and what was a hole stays one."""
import filecmp
import os
import signal
import time

from tool import memory_of

MIB = 1 << 20


def write_random(path, size):
    with open(path, "wb") as file:
        for at in range(0, size, 8 * MIB):
            file.write(os.urandom(min(8 * MIB, size - at)))


def transfer(t, source, dump, recv=(), send=()):
    """Sends the file as an idle guest's memory to a dump: (answer of recv, answer of send)."""
    running, uri = t.tool.recv("--once", "--dump", dump, *recv)
    sent = t.tool.run("send", uri or "tcp:127.0.0.1:1", "--guest", "idle", "--memory-from", source, *send)
    return running.end(), sent


def succeeded(*answers):
    return all(answer.code == 0 and not answer.errors for answer in answers)


def a_dump_is_the_file_that_was_sent(t):
    for size in (64 * MIB, 67112960, 4096):
        source, dump = t.scratch / "source", t.scratch / f"dump-{size}"
        write_random(source, size)
        got, sent = transfer(t, source, dump)
        t.expect(succeeded(got, sent), f"{size} bytes: both exit 0", got, sent)
        t.expect(dump.exists() and filecmp.cmp(source, dump, shallow=False), f"{size} bytes: same content", got)
        t.expect(not (t.scratch / f"dump-{size}.partial").exists(), f"{size} bytes: no partial file is left")


def both_sides_report_in_json(t):
    source, dump = t.scratch / "source", t.scratch / "dump"
    write_random(source, 8 * MIB)
    got, sent = transfer(t, source, dump, recv=["--json"], send=["--json", "--channels", "3"])
    here, there = sent.json or {}, got.json or {}
    t.expect(here.get("status") == there.get("status") == "completed", "completed", got, sent)
    t.expect(here.get("verified", 0) is None and here.get("guest", {}).get("type") == "idle", "send's guest", sent)
    keys = {"status", "total-time", "ram", "channels", "dump"}
    t.expect(keys <= set(there) and there.get("dump") == str(dump), "recv's own fields", got)
    t.expect(len(there.get("channels", [])) == 3, "recv adopts the source's channels", got)
    t.expect(there.get("ram", {}).get("normal") == 2048, "recv counts the pages", got)


def a_sparse_guest_stays_sparse(t):
    source, dump = t.scratch / "source", t.scratch / "dump"
    with open(source, "wb") as file:
        file.truncate(2 << 30)
        for at in (0, 700 * MIB + 4096, (2 << 30) - 2 * MIB):
            file.seek(at)
            file.write(os.urandom(2 * MIB))
    running, uri = t.tool.recv("--once", "--dump", dump)
    sender = t.tool.start("send", uri or "tcp:127.0.0.1:1", "--guest", "idle", "--memory-from", source,
                          "--max-bandwidth", "8M", "--downtime-limit", "1")
    most = {"VmRSS": 0, "RssShmem": 0, "RssAnon": 0}
    while sender.process.poll() is None:
        now = memory_of(sender.process.pid)
        most = {name: max(value, now.get(name, 0)) for name, value in most.items()}
        time.sleep(0.01)
    sent, got = sender.end(), running.end()
    t.expect(succeeded(got, sent) and filecmp.cmp(source, dump, shallow=False), "2 GiB with 6 MiB of data", got, sent)
    blocks = dump.stat().st_blocks * 512 if dump.exists() else None
    t.expect(blocks is not None and blocks <= 16 * MIB, f"the dump takes {blocks} bytes of disk")
    t.expect(0 < most["VmRSS"] < 64 * MIB and most["RssShmem"] < 8 * MIB, f"the source allocates nothing: {most}")


def memory_that_is_not_fresh_is_overwritten(t):
    source, old, dump = t.scratch / "source", t.scratch / "old", t.scratch / "dump"
    write_random(old, 32 * MIB)
    with open(source, "wb") as file:  # data, written zeros, and a hole to the end
        file.write(os.urandom(8 * MIB) + bytes(8 * MIB))
        file.truncate(32 * MIB)
    got, sent = transfer(t, source, dump, recv=["--memory-from", old])
    t.expect(succeeded(got, sent), "both exit 0", got, sent)
    t.expect(dump.exists() and filecmp.cmp(source, dump, shallow=False), "zeros replace what was there", got)


def memory_is_received_without_a_dump(t):
    for words in (["--discard"], [], ["--prealloc"]):
        running, uri = t.tool.recv("--once", *words)
        sent = t.tool.run("send", uri or "tcp:127.0.0.1:1", "--ram", "32M", "--dirty-rate", "20M")
        got = running.end()
        t.expect(succeeded(got, sent), " ".join(words) or "plain memory", got, sent)


def a_guest_runs_on_at_the_destination(t):
    running, uri = t.tool.recv("--once", "--guest", "process")
    sent = t.tool.run("send", uri or "tcp:127.0.0.1:1", "--ram", "32M", "--dirty-rate", "20M")
    got = running.end()
    wrote = [int(line.split()[-2]) for line in got.err.splitlines() if line.startswith("the guest ran on and wrote")]
    t.expect(succeeded(got, sent) and wrote and wrote[0] > 1000, f"it wrote {wrote} pages in a second", got, sent)


def one_listener_serves_again_and_again(t):
    running, uri = t.tool.recv("--discard")
    for n in range(3):
        sent = t.tool.run("send", uri or "tcp:127.0.0.1:1", "--ram", "16M", "--channels", str(n + 1))
        t.expect(succeeded(sent), f"guest {n + 1}", sent)
    running.signal(signal.SIGTERM)
    got = running.end()
    t.expect(got.code == 0 and got.out.count("completed") == 3 and not got.errors, "SIGTERM ends it with 0", got)


def a_unix_socket_serves_too(t):
    path = t.scratch / "socket"
    running, uri = t.tool.recv("--once", "--discard", uri=f"unix:{path}")
    sent = t.tool.run("send", f"unix:{path}", "--ram", "16M")
    t.expect(succeeded(running.end(), sent) and uri == f"unix:{path}", "both exit 0", sent)


CASES = [a_dump_is_the_file_that_was_sent, both_sides_report_in_json, a_sparse_guest_stays_sparse,
         memory_that_is_not_fresh_is_overwritten, memory_is_received_without_a_dump,
         a_guest_runs_on_at_the_destination, one_listener_serves_again_and_again, a_unix_socket_serves_too]
