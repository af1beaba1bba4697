#!/usr/bin/env python3
"""Tests of the checker of witness files: what is right passes, and each kind of lie is found."""
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
from witness import DESTINATION, SOURCE, START, STOP, TICK, encode, problems, read  # noqa: E402


def log(*events):
    """(side, kind, counter, time) each; one life per side."""
    data = b"".join(encode(side, kind, 1, side, number, counter, counter * 3, time)
                    for number, (side, kind, counter, time) in enumerate(events))
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return read(file.name)


S, D = SOURCE, DESTINATION
MOVED = [(S, START, 0, 10), (S, TICK, 1, 11), (S, STOP, 2, 12), (D, START, 2, 20), (D, TICK, 3, 21), (D, STOP, 3, 22)]


def changed(index, event):
    return MOVED[:index] + [event] + MOVED[index + 1:]


CASES = [
    ("a guest that moved", MOVED, 15, None),
    ("a guest that stayed", [(S, START, 0, 1), (S, STOP, 2, 5), (S, START, 2, 8), (S, TICK, 3, 9)], None, None),
    ("a source that was killed", MOVED[:2] + MOVED[3:], 15, None),
    ("two at once", MOVED + [(S, START, 4, 21), (S, TICK, 5, 22)], 15, "ran twice"),
    ("a frozen source that ticks on", changed(2, (S, TICK, 9, 25)), 15, "ran twice"),
    ("no RUN", MOVED, None, "never sent"),
    ("before RUN", MOVED, 21, "later"),
    ("counters that go back", changed(4, (D, TICK, 1, 21)), 15, "went back"),
    ("a tick without a start", MOVED[1:], 15, "outside"),
    ("two starts", MOVED + [(D, START, 3, 30), (D, TICK, 4, 31)], 15, "2 times"),
]


def main():
    print(f"1..{len(CASES) + 1}")
    for number, (name, events, run, expected) in enumerate(CASES, 1):
        said = problems(log(*events), run)
        right = not said if expected is None else any(expected in text for text in said)
        print(f"{'ok' if right else 'not ok'} {number} - {name}")
        if not right:
            print(f"# expected {expected}, got {said}")
    try:
        data = bytearray(encode(S, START, 1, 1, 0, 0, 0, 1))
        data[40] ^= 1
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            read(file.name)
        print(f"not ok {len(CASES) + 1} - a damaged record")
    except ValueError:
        print(f"ok {len(CASES) + 1} - a damaged record")


if __name__ == "__main__":
    main()
