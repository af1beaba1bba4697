"""One run of perftest's ib_write_bw, for comparison: RDMA WRITEs out of one small buffer into another, and nothing else.

Its buffers are hot in the cache, and it checks and tells nothing. Options: its manual page; that -n counts per queue
pair, and that it prints MiB as MB: src/perftest_parameters.c.
"""
import re
import time
from pathlib import Path

from bench import MIB, Failed

BINARY = "ib_write_bw"
PORT = 18515  # TCP, by which the two find each other


def _listens():
    """Somebody does at PORT. A connection made to find out would be taken for the client's."""
    return re.search(rf":{PORT:04X} 0+:0000 0A ", Path("/proc/net/tcp").read_text(), re.M) is not None


def write_bw(bench, address, gid, size, total, pairs=1, depth=128, chain=1):
    """Moves about `total` bytes in messages of `size`, over so many queue pairs with so many messages under way each,
    posted by `chain` at once, of packets of 4096. seconds: from the first post to the last completion."""
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
        out = bench.run(*words, address)
        server.end()
    finally:
        bench.stop(server)
    found = re.search(rf"^\s*{size}\s+\d+\s+[\d.]+\s+([\d.]+)\s", out, re.M)
    if not found or float(found[1]) == 0:
        raise Failed(f"{BINARY} printed no bandwidth: {out[-400:]}")
    moved = count * pairs * size
    return {"seconds": moved / (float(found[1]) * MIB), "bytes": moved}
