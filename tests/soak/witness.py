"""Reads witness files (guest/witness.h) and says what they contradict.

The rules, over all files of one guest on one clock:
  - while the guest of one side runs (from START to STOP, or to the last TICK of one that was killed or frozen), nothing
    of the other side says that it runs there;
  - the guest's own counters never go back, in the order of time;
  - a destination's guest starts after RUN was sent, and only once.
"""
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

RECORD, MAGIC, MASK = 64, b"GWITNESS", (1 << 64) - 1
SOURCE, DESTINATION = 1, 2
START, TICK, STOP = 1, 2, 3
SIDES = {SOURCE: "source", DESTINATION: "destination"}


@dataclass
class Record:
    side: int
    kind: int
    pid: int
    life: int
    number: int
    ticks: int
    steps: int
    ns: int


@dataclass
class Span:
    """A guest that ran without a break on one side."""
    side: int
    life: int
    first: int  # ns
    last: int
    ticks: int = 0  # records of kind TICK
    ended: bool = False  # by a STOP

    def __str__(self):
        return f"{SIDES.get(self.side, self.side)} {self.first / 1e9:.6f} to {self.last / 1e9:.6f} s"


def mix(x):
    x = (x + 0x9e3779b97f4a7c15) & MASK
    x = ((x ^ (x >> 30)) * 0xbf58476d1ce4e5b9) & MASK
    x = ((x ^ (x >> 27)) * 0x94d049bb133111eb) & MASK
    return x ^ (x >> 31)


def encode(side, kind, pid, life, number, ticks, steps, ns):
    words = (1 << 48 | kind << 40 | side << 32 | pid, life, number, ticks, steps, ns)
    check = 0
    for word in words:
        check = mix(check ^ word)
    return MAGIC + struct.pack(">7Q", *words, check)


def read(path):
    """Records of a file in the order they were written; ValueError for one that is damaged."""
    data = Path(path).read_bytes() if Path(path).exists() else b""
    records = []
    for at in range(0, len(data) - len(data) % RECORD, RECORD):
        piece = data[at:at + RECORD]
        head, life, number, ticks, steps, ns, _ = struct.unpack(">7Q", piece[8:])
        record = Record(head >> 32 & 0xff, head >> 40 & 0xff, head & 0xffffffff, life, number, ticks, steps, ns)
        if encode(record.side, record.kind, record.pid, life, number, ticks, steps, ns) != piece:
            raise ValueError(f"{path}: record at {at} is damaged")
        records.append(record)
    return records


def count_ticks(path, side):
    """Of the side's guest, so far. Cheap, and believes what it reads."""
    data = Path(path).read_bytes()
    return sum(pair == (TICK, side) for pair in zip(data[10::RECORD], data[11::RECORD]))


def follow(path, over):
    """(side, kind) of each record as it is written, until over()."""
    fd, at = os.open(path, os.O_RDONLY), 0
    try:
        while not over():
            data = os.pread(fd, RECORD << 10, at)
            for record in range(0, len(data) - len(data) % RECORD, RECORD):
                yield data[record + 11], data[record + 10]
                at += RECORD
            time.sleep(0.002)
    finally:
        os.close(fd)


def spans(records):
    """What ran when. Records of one life are in order; START begins a span and STOP ends it."""
    found, current = [], {}
    for record in records:
        if record.kind == START:
            current[record.life] = Span(record.side, record.life, record.ns, record.ns)
            found.append(current[record.life])
        elif record.life not in current:
            found.append(Span(record.side, record.life, record.ns, record.ns))  # ran without having been started
            found[-1].ticks = -1
        else:
            span = current[record.life]
            span.last = max(span.last, record.ns)
            span.ticks += record.kind == TICK
            if record.kind == STOP:
                span.ended = True
                del current[record.life]
    return found


def problems(records, run_sent_ns=None):
    """Sentences; none if all is well. run_sent_ns: when RUN was first passed on to the destination, None if never."""
    found = spans(records)
    said = [f"{span}: a tick outside of START and STOP" for span in found if span.ticks < 0]
    for i, one in enumerate(found):
        for other in found[i + 1:]:
            if one.life != other.life and one.first <= other.last and other.first <= one.last:
                said.append(f"the guest ran twice: {one}, and {other}")
    starts = [span for span in found if span.side == DESTINATION]
    if len(starts) > 1:
        said.append(f"the guest was started {len(starts)} times at the destination")
    for span in starts:
        if run_sent_ns is None:
            said.append(f"{span}: RUN was never sent")
        elif span.first < run_sent_ns:
            said.append(f"{span}: RUN was sent {(run_sent_ns - span.first) / 1e6:.3f} ms later")
    last = None
    for record in sorted(records, key=lambda record: (record.ns, record.number)):
        if last and (record.ticks < last.ticks or record.steps < last.steps):
            said.append(f"the guest's counters went back from {last} to {record}")
            break
        last = record
    return said
