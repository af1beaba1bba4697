#!/usr/bin/env python3
"""The benchmarks, each in its quick form: they end well, report what they promise, and leave nothing behind; and the parts
of them that calculate, on numbers whose answer is known.

    perf.py ROOT BUILD [NAME ...]

With names, the quick form of these benchmarks and nothing else; otherwise, of all but those that take a virtual machine.
"""
import json
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE.parent / "runner"), str(HERE.parents[1] / "perf"), str(HERE.parents[1] / "perf" / "lib")]
import bench  # noqa: E402
import chart  # noqa: E402
import rate  # noqa: E402
import stats  # noqa: E402
import tap  # noqa: E402
import tls  # noqa: E402

BENCHMARKS = {"stream": 9, "sparse": 3, "rate": 2, "dispatch": 6, "netns": 4, "tls": 4}  # name: results of a quick run
IN_MACHINES = {"rdma": 12, "tls --kernel": 6}  # the same, with the options that they take
MISSING = 77


def results(samples):
    """How many runs are in there: a list of runs, or of entries with runs, or runs by name."""
    if isinstance(samples, dict):
        return sum(len(runs) for runs in samples.values())
    return sum(len(entry.get("runs", [entry])) for entry in samples)


def left_behind(scratch):
    namespaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    return [str(path) for path in scratch.iterdir()] + [line for line in namespaces.splitlines() if "godwit-perf" in line]


def is_chart(path):
    try:
        return xml.etree.ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    except (OSError, xml.etree.ElementTree.ParseError):
        return False


def quick(writer, root, build, name, expected):
    with tempfile.TemporaryDirectory(prefix="godwit-perf-test-") as top:
        scratch, out = Path(top) / "scratch", Path(top) / "out"
        scratch.mkdir()
        program, *more = name.split()
        words = [sys.executable, root / "perf" / f"{program}.py", "--quick", *more, "--dir", scratch, "--out", out,
                 "--build", build]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode == MISSING:
            writer.skip(f"{name}: quick run", done.stderr.strip().splitlines()[-1])
            return
        details = done.stderr.splitlines()[-8:]
        if not writer.ok(done.returncode == 0, f"{name}: quick run", details):
            return
        report = json.loads((out / f"{program}.json").read_text())
        count = results(report["samples"])
        writer.ok(count == expected, f"{name}: {expected} results", [f"{count} results"])
        tables = sum(line.startswith("| ---") for line in done.stdout.splitlines())
        writer.ok(tables == len(report["tables"]) > 0 and report["method"] in done.stdout,
                  f"{name}: the tables and the method are printed", done.stdout.splitlines())
        writer.ok(is_chart(out / f"{program}.svg"), f"{name}: the chart is well formed")
        writer.ok(not left_behind(scratch), f"{name}: nothing is left behind", left_behind(scratch))


def interrupted(writer, root, build):
    """Ctrl-C in the middle of a run."""
    with tempfile.TemporaryDirectory(prefix="godwit-perf-test-") as top:
        scratch = Path(top) / "scratch"
        scratch.mkdir()
        words = [sys.executable, root / "perf" / "rate.py", "--limits", "10", "--seconds", "60", "--dir", scratch,
                 "--out", top, "--build", build]
        # Whoever runs the tests in the background has SIGINT ignored, and so would the child.
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                 preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        deadline = time.monotonic() + 30
        while len(children(child.pid)) < 2 and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        started = children(child.pid)
        if child.poll() == MISSING:
            writer.skip("an interrupted run", child.stdout.read().strip())
            return
        child.send_signal(signal.SIGINT)
        out = child.communicate(timeout=30)[0]
        writer.ok(child.returncode == 130, "an interrupted run ends with 130", [f"status {child.returncode}", *out.splitlines()])
        deadline = time.monotonic() + 10  # what was just being started dies with its parent, a moment later
        while any(map(alive, started)) and time.monotonic() < deadline:
            time.sleep(0.01)
        writer.ok(len(started) == 2 and not any(map(alive, started)),
                  "an interrupted run ends its processes", [str(started)])
        writer.ok(not left_behind(scratch), "an interrupted run leaves nothing behind", left_behind(scratch))


def children(pid):
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def calculations(writer):
    writer.ok(stats.quantile([4, 1, 3, 2], 0.5) == 2.5 and stats.quantile(range(101), 0.99) == 99, "quantiles")
    writer.ok(stats.bytes_text(64 << 20) == "64 MiB" and stats.bytes_text(1536) == "1.5 KiB", "sizes as text")
    writer.ok(bench.size("1.5G") == 3 << 29 and bench.size("64MiB") == 64 << 20, "sizes from text")
    steady = [(0.005 * i, 10 ** 8 * 0.005 * i) for i in range(1001)]  # 5 s of 100 MB/s
    found = rate.evaluate(steady, 10 ** 8)
    writer.ok(max(abs(value - 10 ** 8) for value in [*found["windows"], found["average"]]) < 1000,
              "a steady stream has windows of its rate", [str(found)])
    burst = [(t, n + (3 * 10 ** 6 if t >= 2.5 else 0)) for t, n in steady]
    windows = rate.evaluate(burst, 10 ** 8)["windows"]
    writer.ok(1.029 < max(windows) / 10 ** 8 < 1.031, "a burst of 3 % is seen in a window", [str(max(windows))])
    writer.ok(compares({"bare": "A", "godwit": "A", "QEMU": "A", "plain": None}), "the same cipher everywhere is compared")
    writer.ok(not compares({"bare": "A", "godwit": "A", "QEMU": "B"}), "different ciphers are not compared")
    svg = chart.bars("a < b", "s", "x", ["g"], {"one": [[1, 0.5, 2]], "two": [None]}, logarithmic=True)
    writer.ok(xml.etree.ElementTree.fromstring(svg) is not None and "a &lt; b" in svg, "names in charts are escaped")


def compares(suites):
    """Whether the benchmark of TLS goes on when its programs negotiate these."""
    class Programs:
        @staticmethod
        def negotiated(who, channels):
            return suites[who]
    try:
        tls.negotiated(Programs, [(who, 2) for who in suites])
        return True
    except bench.Failed:
        return False


def main(root, build, *names):
    writer = tap.Writer()
    for name in names:
        quick(writer, Path(root), Path(build), name, {**BENCHMARKS, **IN_MACHINES}[name])
    if names:
        return writer.done()
    calculations(writer)
    for name, expected in BENCHMARKS.items():
        quick(writer, Path(root), Path(build), name, expected)
    interrupted(writer, Path(root), Path(build))
    return writer.done()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
