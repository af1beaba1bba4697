"""What every benchmark does: read its options, find the programs, start processes and end them whatever happens, measure in
interleaved rounds, and leave a table, a JSON file and a chart.

Children are killed with this process, even if it is killed itself; files live in one scratch folder that is removed; what
else was made is undone by at_exit(). Ctrl-C and SIGTERM go the same way out.
"""
import argparse
import ctypes
import datetime
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from child import Child

ROOT = Path(__file__).resolve().parents[2]
MIB, GIB = 1 << 20, 1 << 30
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A sentence for the user: the run cannot go on."""


def size(text):
    match = re.fullmatch(r"([\d.]+)\s*([KMGT]?)(?:i?B)?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is no size")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2] or " "))


def numbers(text):
    return [int(word) for word in text.split(",")]


def arguments(description, rounds=5):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true",
                        help="one small run of everything: shows that it works, measures nothing")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"measured rounds after the warm-up ({rounds})")
    parser.add_argument("--dir", type=Path, metavar="DIR",
                        help="where memory files are made: a tmpfs with room (/dev/shm)")
    parser.add_argument("--out", type=Path, metavar="DIR", default=ROOT / "build" / "perf-results",
                        help="where the JSON file and the chart go (build/perf-results)")
    parser.add_argument("--build", type=Path, metavar="DIR", default=ROOT / "build", help="where the programs are (build)")
    return parser


def _child_setup():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process(Child):
    """A child that dies with us, and whose end is a good one or a failure of the benchmark."""

    def __init__(self, words, variables):
        super().__init__(words, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_child_setup,
                         env={**os.environ, **variables})
        self.usage = None

    @property
    def pid(self):
        return self.process.pid

    def complaint(self):
        return f"{' '.join(self.words[:4])} ...: " + ("".join(self.err[-3:]).strip() or "no message")

    def wait_for(self, pattern, lines, limit=60):
        """The match of pattern in lines (out or err), as soon as it is there."""
        match = self.find(pattern, lines, limit)
        if not match:
            raise Failed(f"no {pattern!r} from {self.complaint()}")
        return match

    def end(self, limit=600):
        """Waits for a good end; the text of standard output. usage is then what it used."""
        if self.process.returncode is None:
            # No polling: it would take its share of what is measured.
            with os.fdopen(os.pidfd_open(self.pid)) as ended:
                if not select.select([ended], [], [], limit)[0]:
                    raise Failed(f"did not end within {limit} s: {self.complaint()}")
            _, status, self.usage = os.wait4(self.pid, 0)
            self.process.returncode = os.waitstatus_to_exitcode(status)
        self.join()
        if self.process.returncode != 0:
            raise Failed(f"status {self.process.returncode}: {self.complaint()}")
        return "".join(self.out)


class Bench:
    def __init__(self, name, title, method, options):
        self.name, self.title, self.method, self.options = name, title, method, options
        self.children, self.undo = [], []
        self.variables, self.watchers = {}, []
        self.scratch = None
        self.result = {"benchmark": name, "title": title, "date": datetime.date.today().isoformat(), "method": method,
                       "quick": options.quick, "machine": machine()}
        self.tables = []

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        where = self.options.dir or (Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None)
        self.scratch = Path(tempfile.mkdtemp(prefix="godwit-perf-", dir=where))
        return self

    def __exit__(self, *what):
        # A second Ctrl-C must not leave a half-cleaned machine.
        old = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for child in reversed(self.children):
            child.kill()
        for undo in reversed(self.undo):
            undo()
        shutil.rmtree(self.scratch, ignore_errors=True)
        signal.signal(signal.SIGINT, old)

    def program(self, name):
        path = self.options.build / name
        if not path.exists():
            raise Failed(f"{name} is not built in {self.options.build}")
        return path

    def start(self, *words):
        self.children.append(Process(words, self.variables))
        for started in self.watchers:
            started.append(self.children[-1])
        return self.children[-1]

    @contextmanager
    def watched(self, **variables):
        """The list of what is started within, which outlives stop(). It has these variables in its environment."""
        before, started = self.variables, []
        self.variables = {**before, **variables}
        self.watchers.append(started)
        try:
            yield started
        finally:
            self.watchers.remove(started)
            self.variables = before

    def run(self, *words, limit=600):
        child = self.start(*words)
        try:
            return child.end(limit)
        finally:
            self.stop(child)

    def stop(self, child):
        child.kill()
        self.children.remove(child)

    def at_exit(self, undo):
        self.undo.append(undo)

    def say(self, text):
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def rounds(self, legs):
        """Every leg once per round, each round beginning with another one; the first round warms up and does not count.
        legs: {name: function}. {name: [what it returned]}."""
        names, samples = list(legs), {name: [] for name in legs}
        total = 1 if self.options.quick else self.options.rounds + 1
        for number in range(total):
            warm_up = number == 0 and not self.options.quick
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                start = time.monotonic()
                value = legs[name]()
                text = name if isinstance(name, str) else ", ".join(str(part) for part in name)
                self.say(f"{'warm-up' if warm_up else f'round {max(number, 1)}'}: {text}: "
                         f"{time.monotonic() - start:.1f} s with setup")
                if not warm_up:
                    samples[name].append(value)
        return samples

    def table(self, title, header, rows):
        self.tables.append({"title": title, "header": header, "rows": [[str(cell) for cell in row] for row in rows]})

    def target(self, text, value, target, met):
        self.result.setdefault("targets", []).append({"what": text, "value": value, "target": target, "met": bool(met)})

    def finish(self, chart, **data):
        """Prints the tables as Markdown and writes NAME.json and NAME.svg."""
        self.result.update(data, tables=self.tables)
        self.options.out.mkdir(parents=True, exist_ok=True)
        (self.options.out / f"{self.name}.json").write_text(json.dumps(self.result, indent=1) + "\n")
        (self.options.out / f"{self.name}.svg").write_text(chart)
        print(f"## {self.title}\n\n{self.result['date']}, {machine_line(self.result['machine'])}"
              + ("\n\n**A quick run: these figures mean nothing.**" if self.options.quick else ""))
        targets = [[t["what"], t["value"], t["target"], "yes" if t["met"] else "no"]
                   for t in self.result.get("targets", [])]
        if targets and not self.options.quick:
            self.table("Targets", ["what", "measured", "target", "met"], targets)
        for table in self.tables:
            print(f"\n{table['title']}:\n\n{markdown(table['header'], table['rows'])}")
        print(f"\n{self.method}")
        self.say(f"{self.name}.json and {self.name}.svg are in {self.options.out}")


def markdown(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def _first(path, pattern):
    try:
        match = re.search(pattern, Path(path).read_text(), re.M)
        return match[1].strip() if match else "unknown"
    except OSError:
        return "unknown"


def machine():
    """What the figures depend on; nothing that names the machine."""
    total = int(_first("/proc/meminfo", r"^MemTotal:\s+(\d+)")) * 1024
    flags = _first("/proc/cpuinfo", r"^flags\s*:(.*)$").split()
    return {"processor": _first("/proc/cpuinfo", r"^model name\s*:(.*)$"), "processors": os.cpu_count(),
            "memory": total, "kernel": re.match(r"[\d.]*", os.uname().release)[0], "virtual": "hypervisor" in flags,
            "congestion-control": _first("/proc/sys/net/ipv4/tcp_congestion_control", r"(.*)"),
            "load": os.getloadavg()[0]}


def machine_line(of):
    return (f"{of['processors']} x {of['processor']}{', a virtual machine' if of['virtual'] else ''}, "
            f"{of['memory'] / GIB:.0f} GiB, Linux {of['kernel']}, TCP {of['congestion-control']}, "
            f"load {of['load']:.1f} when it began")


def available_memory():
    return int(_first("/proc/meminfo", r"^MemAvailable:\s+(\d+)")) * 1024


def fill(path, bytes_):
    """A file of random bytes."""
    with open(path, "wb") as out, open("/dev/urandom", "rb") as random:
        left = bytes_
        while left:
            piece = random.read(min(left, 4 * MIB))
            out.write(piece)
            left -= len(piece)


def main(run):
    """Runs a benchmark; the exit status is 0, or 1 with a sentence, or 77 where something it needs is missing."""
    try:
        run()
    except Failed as failure:
        print(f"{Path(sys.argv[0]).stem}: {failure}", file=sys.stderr)
        return 1
    except Missing as missing:
        print(f"{Path(sys.argv[0]).stem}: {missing}", file=sys.stderr)
        return 77
    except KeyboardInterrupt:
        return 130
    return 0


class Missing(Exception):
    """What this benchmark needs is not there; a test skips with it."""


def need(*programs):
    for program in programs:
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed")
