"""One run of perftest's ib_write_bw, for comparison: RDMA WRITEs out of one small buffer into another, and nothing else.

Its buffers are hot in the cache, and it checks and tells nothing. The time is not its own: it counts the processor's cycles, and
measures how long one takes by a sample of 50 ms, which on a busy or emulated processor is wrong by some percent, or by
all. The device's count of packets is watched instead. Without the connection manager (no -R) there are no others than
those of the data. Options: its manual page; -n is per queue pair.
"""
import re
import threading
import time
from pathlib import Path

from bench import Failed

BINARY = "ib_write_bw"
PORT = 18515  # TCP, by which the two find each other
SENT = Path("/sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts")
TICK = 0.01  # seconds between two looks


class Span:
    """From the first packet to the last that was sent in the `with` block, to a tick each."""

    def __enter__(self):
        self._ended = threading.Event()
        self._first = self._last = SENT.read_text()
        self._begin = self._end = time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _watch(self):
        while not self._ended.wait(TICK):
            now, sent = time.monotonic(), SENT.read_text()
            if sent == self._first:
                self._begin = now
            elif sent != self._last:
                self._last, self._end = sent, now

    @property
    def seconds(self):
        if self._last == self._first:
            raise Failed(f"{SENT} does not count")
        return self._end - self._begin - TICK


def _listens():
    """Somebody does at PORT. A connection made to find out would be taken for the client's."""
    return re.search(rf":{PORT:04X} 0+:0000 0A ", Path("/proc/net/tcp").read_text(), re.M) is not None


def write_bw(bench, address, gid, size, total, pairs=1, depth=128, chain=1):
    """Moves about `total` bytes in messages of `size`, over so many queue pairs with so many messages under way each,
    posted by `chain` at once, of packets of 4096. seconds: from the first packet to the last."""
    count = max(total // size // pairs // chain * chain, chain)
    words = [BINARY, "-d", "rxe0", "-x", gid, "-F", "-N", "-m", 4096, "-s", size, "-n", count, "-q", pairs, "-t", depth,
             "-l", chain, "-p", PORT]
    server = bench.start(*words)
    try:
        deadline = time.monotonic() + 60
        while not _listens():
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"no listener: {server.complaint()}")
            time.sleep(0.01)
        with Span() as span:
            bench.run(*words, address)
        server.end()
    finally:
        bench.stop(server)
    return {"seconds": span.seconds, "bytes": count * pairs * size}
