#!/usr/bin/env python3
"""Does the rate limit hold? Bytes that really arrived, by windows of one second, from 10 MB/s to 1 GB/s."""
import ctypes
import json
import os
import socket
import struct
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))
import bench as b  # noqa: E402
import chart  # noqa: E402
import stats  # noqa: E402
import tool  # noqa: E402

METHOD = """\
perf/folded_guest.c migrates a guest large enough to be limited for the whole time, of random bytes, to `recv --discard`. The
bytes are counted by the kernel, not by godwit: tcpi_bytes_received of the destination's data connections, read every 5 ms
through duplicates of its descriptors; where windows begin and end it is interpolated. Windows of one second begin every
100 ms, from the first byte to the moment at which the last page was due. One run per limit and round, all rounds together.
Average: bytes by time over the same span, of the worst round. The limit counts headers of godwit, so do the bytes; headers
of TCP are counted by neither. A window above the limit counts as a positive deviation."""

LIMITS = [10, 30, 100, 300, 1000]  # MB/s
SAMPLE, WINDOW, STEP = 0.005, 1.0, 0.1  # seconds
SYS_PIDFD_GETFD = 438  # the same number on every architecture
TCP_INFO_SIZE = 144
BYTES_RECEIVED = 128  # offset of tcpi_bytes_received, linux/tcp.h


def adopt_sockets(pidfd, pid, known):
    """Duplicates of another process's connected TCP sockets; `known` are its descriptors we have looked at."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if not link.startswith("socket:") or link in known:
            continue
        fd = b.LIBC.syscall(SYS_PIDFD_GETFD, pidfd, int(name), 0)
        if fd < 0:
            number = ctypes.get_errno()
            if number in (1, 38):  # EPERM, ENOSYS
                raise b.Missing(f"pidfd_getfd: {os.strerror(number)}")
            continue
        adopted = socket.socket(fileno=fd)
        try:
            adopted.getpeername()
        except OSError:
            adopted.close()
            continue
        known.add(link)
        found.append(adopted)
    return found


def received(sockets):
    return sum(struct.unpack_from("Q", one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE), BYTES_RECEIVED)[0]
               for one in sockets)


def sample(bench, limit, seconds, channels):
    """[(time, bytes received)] of one migration."""
    destination, uri = tool.listen(bench, "--once", "--discard")
    # A stop phase that takes what is left must not be measured: it is free of the limit.
    source = bench.start(bench.program("perf/folded_guest"), uri, int(limit * seconds), f"multifd-channels={channels}",
                         f"max-bandwidth={limit}", "downtime-limit=0")
    pidfd, sockets, known, points = os.pidfd_open(destination.pid), [], set(), []
    try:
        due = time.monotonic()
        while source.process.poll() is None:
            # New connections are looked for while it begins: the control connection and one per channel.
            if len(sockets) < channels + 1:
                sockets += adopt_sockets(pidfd, destination.pid, known)
            points.append((time.monotonic(), received(sockets)))
            due = max(due + SAMPLE, time.monotonic())
            time.sleep(max(0, due - time.monotonic()))
        json.loads(source.end())
        destination.end()
        return points
    finally:
        os.close(pidfd)
        for one in sockets:
            one.close()
        bench.stop(source)
        bench.stop(destination)


def at(points, when):
    """Bytes at a time, between two samples."""
    low, high = 0, len(points) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if points[middle][0] <= when else (low, middle)
    (t0, n0), (t1, n1) = points[low], points[high]
    return n0 + (n1 - n0) * (when - t0) / (t1 - t0) if t1 > t0 else n0


def evaluate(points, limit):
    least = limit / 1000 + 65536  # the greetings are no pages
    begun = next((i for i, (_, n) in enumerate(points) if n > least), len(points) - 1)
    total = points[-1][1]
    # The last batches of each channel may be under way when the limit has nothing more to hold back.
    over = next(i for i, (_, n) in enumerate(points) if n >= total - limit / 50)
    points = points[max(begun - 1, 0):over + 1]
    start, end = points[0][0], points[-1][0]
    if end - start < WINDOW:
        raise b.Failed("the run was over before a window was full")
    windows, when = [], start
    while when + WINDOW <= end:
        windows.append((at(points, when + WINDOW) - at(points, when)) / WINDOW)
        when += STEP
    return {"windows": windows, "average": (points[-1][1] - points[0][1]) / (end - start), "seconds": end - start}


def percent(value, limit):
    return f"{(value / limit - 1) * 100:+.2f} %"


def report(bench, limits, samples):
    rows, highest, offsets, columns = [], [], [], {}
    for limit in limits:
        runs = samples[f"{limit // 10 ** 6} MB/s"]
        windows = [value for run in runs for value in run["windows"]]
        p99 = stats.quantile(windows, 0.99)
        average = max((run["average"] for run in runs), key=lambda value: abs(value / limit - 1))
        highest.append(p99 / limit - 1)
        offsets.append(abs(average / limit - 1))
        rows.append([limit // 10 ** 6, len(windows), percent(average, limit), percent(stats.median(windows), limit),
                     percent(p99, limit), percent(max(windows), limit), percent(min(windows), limit)])
        columns[limit] = windows
    bench.table("One-second windows against the limit", ["limit, MB/s", "windows", "average, worst round", "median", "p99",
                                                        "highest", "lowest"], rows)
    bench.target("p99 of one-second windows, worst limit", f"{max(highest) * 100:+.2f} %", "<= +2 %", max(highest) <= 0.02)
    bench.target("average, worst limit", f"{max(offsets) * 100:.2f} % off", "<= 2 %", max(offsets) <= 0.02)
    places = max(len(windows) for windows in columns.values())
    series = {f"{limit // 10 ** 6} MB/s": [value / limit * 100 for value in windows] for limit, windows in columns.items()}
    bench.finish(chart.lines(bench.title, "% of the limit", "windows of one second, one every 100 ms, round after round",
                             [""] * places, series, line=(102, "+2 %")),
                 parameters={"limits": limits}, samples=samples)


def run():
    parser = b.arguments(__doc__, rounds=5)
    parser.add_argument("--limits", type=b.numbers, metavar="LIST", help="in MB/s (10,30,100,300,1000)")
    parser.add_argument("--seconds", type=float, help="length of a run (10)")
    parser.add_argument("--channels", type=int, default=2, metavar="N", help="(2)")
    options = parser.parse_args()
    limits = [limit * 10 ** 6 for limit in options.limits or ([10, 100] if options.quick else LIMITS)]
    seconds = options.seconds or (2 if options.quick else 10)
    with b.Bench("rate", "The rate limit", METHOD, options) as bench:
        legs = {f"{limit // 10 ** 6} MB/s":
                lambda limit=limit: evaluate(sample(bench, limit, seconds, options.channels), limit) for limit in limits}
        report(bench, limits, bench.rounds(legs))


if __name__ == "__main__":
    sys.exit(b.main(run))
