#!/usr/bin/env python3
"""Makes the first corpus of the fuzz targets: seeds.py GOLDEN_FOLDER CORPUS_FOLDER.

Golden vectors, good and bad, go to the targets that decode them; what no vector shows is written here. What fuzzers
find later is added to the corpus by hand.
"""
import struct
import sys
from pathlib import Path

RECORD_HEADER = 16
OFFER, ACCEPT, KEY, EPOCH_ACK, STATE, COMMIT, LOADED, RUN, RUNNING, BYE = 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
REGISTER = 15
FROM_DESTINATION = {ACCEPT, KEY, EPOCH_ACK, LOADED, RUNNING}


def parse(text):
    """(kind, bytes) of a vector; of a session None: it has several connections."""
    kind, data = None, b""
    for line in text.splitlines():
        code, _, comment = line.partition("#")
        comment = comment.strip()
        if comment.startswith("@"):
            return "session", b""
        if comment.startswith("kind: ") and not data:
            kind = comment[6:]
        for token in code.split():
            pair, _, count = token.partition("*")
            data += bytes.fromhex(pair) * (int(count) if count else 1)
    return kind, data


def records(data):
    while len(data) >= RECORD_HEADER:
        kind, _, size = struct.unpack(">HHI", data[:8])
        yield kind, data[RECORD_HEADER:RECORD_HEADER + size]
        data = data[RECORD_HEADER + size:]


def framed(kind, body):
    return struct.pack(">HH", kind, min(len(body), 0xffff)) + body


def from_record(name, data):
    found = list(records(data))
    yield "record", data
    for kind, body in found:
        if kind == OFFER:
            yield "offer", body
        if kind == ACCEPT:
            yield "accept", body
    states = [struct.pack(">H", min(len(body), 0xffff)) + body for kind, body in found if kind == STATE]
    if states:
        yield "state", b"".join(states)
    script = b"".join(framed(kind, body) for kind, body in found)
    yield "destination", script
    if any(kind in FROM_DESTINATION for kind, _ in found):
        for how in (0x10, 0x21, 0x27, 0xf7):
            yield "source", bytes([how]) + script


def from_vector(name, kind, data):
    if kind == "hello":
        yield "hello", data
    elif kind == "answer":
        yield "answer", data
    elif kind == "data":
        yield "packet", data
        yield "stream", b"\1" + data
        yield "stream", b"\3" + data
        yield "stream", b"\7" + 2 * data
    elif kind == "channel":
        yield "stream", b"\0" + data
    elif kind and kind.startswith("rdma "):
        yield kind.removeprefix("rdma "), data
    elif kind in ("record", "control"):
        yield from from_record(name, data)


def state(name, last, offset, data):
    return bytes([len(name)]) + name + bytes([last]) + struct.pack(">Q", offset) + data


def workers(pages, hot, rate, steps, pattern=0, version=1):
    return struct.pack(">III4Q", version, pattern, len(steps), pages, hot, rate, 7) + struct.pack(f">{len(steps)}Q", *steps)


def clock(ticks, last, longest, version=1):
    return struct.pack(">I3Q", version, ticks, last, longest) + b"01234567-89ab-cdef-0123-456789abcdef"


def written():
    for text in ("tcp:127.0.0.1:4444", "tcp:[::1]:0", "tcp::4444", "tcp:host.example:65535", "unix:/run/godwit.sock",
                 "loop:name", "tcp:host", "tcp:[::1", "rdma:host:1", "file:/tmp/x", "tcp:host:65536", "unix:" + "p" * 107,
                 "unix:" + "p" * 108, "tcp:" + "h" * 255 + ":1", ":", ""):
        yield "address", text.encode()
    for text in ("4K", "1.5G", "16T", "18446744073709551615", "0x10", "1e3M", "17179869184T", "multifd-channels=4",
                 "max-bandwidth=1G\ndowntime-limit=300", "downtime-limit=5s", "downtime-limit=0.5s", "x-fault=none",
                 "zero-page-detection=multifd", "peer-timeout=99", "max-bandwidth=18446744073709551615", "none=1",
                 "downtime-limit=1e400s", "1KiB", "1kb", "=", "multifd-channels=00000000000000000000256"):
        yield "options", text.encode()
    bare = lambda sent, credits, size=0: bytes([sent]) + struct.pack(">II", credits, size)
    for frames in ([(32, 32), (32, 64)], [(20, 16), (30, 32), (0, 32, 1 << 31)], [(15, 16)], [(32, 15)], [(32, 33)],
                   [(32, 32), (32, 31)], [(40, 16), (40, 48), (40, 64)]):
        yield "frame", b"".join(bare(*frame) for frame in frames)
    yield "guest", b"\0" + clock(10, 1000, 500)
    yield "guest", b"\0" + clock(0, 0, 0)
    yield "guest", b"\0" + clock(1, 1 << 63, 0)
    for pages, hot, steps in ((1, 0, [0]), (16, 4, [5, 6]), (255, 255, [1 << 60] * 64), (3, 1, [1000] * 7), (8, 9, [0])):
        yield "guest", bytes([pages]) + workers(pages, hot, 100, steps)
    one, two = state(b"clock", 1, 0, b"tick"), state(b"workers", 0, 0, b"")
    rest = state(b"workers", 1, 0, b"steps")
    yield "state", b"".join(struct.pack(">H", len(body)) + body for body in (one, two, rest))
    offer = struct.pack(">QHHIQI", 1, 2, 1, 4096, 8192, 2 << 20) + b"\4none"
    offer += b"\6pc.ram" + struct.pack(">QI", 8192, 4096)
    commit = struct.pack(">II", 1, 2)
    register = struct.pack(">HHIIHHII", 0, 0, 0, 1, 0, 0, 1, 2)
    steps = [(OFFER, offer), (REGISTER, register), (STATE, one), (STATE, two), (STATE, rest), (COMMIT, commit),
             (RUN, b""), (BYE, b"")]
    for end in range(1, len(steps) + 1):
        yield "destination", b"".join(framed(kind, body) for kind, body in steps[:end])
    key = framed(KEY, struct.pack(">HHI", 0, 16, 0) + b"\xff" * 16)
    none = framed(KEY, struct.pack(">HHI", 1, 0, 0))
    rest = framed(EPOCH_ACK, struct.pack(">IQ", 1, 4096)) + framed(LOADED, b"") + framed(RUNNING, b"")
    token = lambda role, channel, epoch: bytes([role, 0]) + struct.pack(">HI", channel, epoch) + bytes(32)
    accept = struct.pack(">QHHHH", 1, 1, 2, 2, 0) + b"\1\1" + token(1, 0, 0) + token(0, 0, 1)
    yield "accept", accept
    yield "source", b"\x17" + framed(ACCEPT, accept) + key + rest
    yield "source", b"\x17" + key + key
    yield "source", b"\x17" + framed(ACCEPT, accept) + key + none + rest
    yield "source", b"\x17" + framed(ACCEPT, accept) + none + none
    yield "source", b"\x1f" + framed(ACCEPT, accept) + key


def tls():
    key = b"00112233445566778899aabbccddeeff"
    for text in (b"qemu:" + key, b"qemu:" + key + b"\nalice:" + key.upper() + b" \r\n", b"# none\n\n#71656d75:" + key,
                 b"a:" + key + b"\na:" + key, b"qemu:" + key[:-1], b"qemu:" + key * 32, b":" + key, b"qemu", b"#00:" + key):
        yield "tls_psk", text
    for how, text, name in ((0, b"CN=a,O=b", b"CN=a,O=b"), (0, b"CN=*;O=x", b"O=x"), (0, b"*a?b*", b"xaxbx"), (0, b" ; ", b""),
                            (0, b"CN=a\\;b;c", b"CN=a\\;b"), (1, b"# who\nCN=a\r\n\n CN=b\\ \n", b"CN=a"), (1, b"#", b"#"),
                            (0, b"**a*a*a*b", b"aaaaaaaaaaaaaaaa"), (0, b"file:/nonexistent", b"")):
        yield "tls_authz", bytes([how]) + text + b"\0" + name


def main(golden, corpus):
    seeds = list(written())
    for path in sorted(Path(golden).glob("*/*.hex")):
        kind, data = parse(path.read_text())
        seeds += from_vector(path.stem, kind, data)
    seeds += tls()
    for number, (target, data) in enumerate(dict.fromkeys(seeds)):
        if len(data) <= 5000:
            folder = Path(corpus) / target
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"seed-{number:03}").write_bytes(data)


if __name__ == "__main__":
    main(*sys.argv[1:])
