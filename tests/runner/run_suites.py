#!/usr/bin/env python3
"""Runs the tests of one or more build directories and sums them up.

    run_suites.py [--filter REGEX] [--jobs N] NAME=BUILDDIR[:SUITE,SUITE...] ...

Programs, environments and time limits come from `meson introspect`. Tests of the suites system, stress and vm, and
those that meson is told not to run in parallel, run alone and last; the others run N at a time. Three kinds of program are
known:

  Criterion   recognised by the library it is linked to; reports TAP into a file of its own
  TAP         meson's `protocol: 'tap'`, on standard output
  plain       exit status 0 passed, 77 skipped (the last line of output is the reason), anything else failed

Counted is what the programs report, test by test. A program that crashes, exceeds its time, reports no tests, does not
keep its plan or exits non-zero without a failing test adds one failure, and so does a sanitizer's report: Criterion
ignores the exit status with which a test process ends after its report, so a leak would pass otherwise.

The last line is "N passed, N failed, N skipped". Exit status: 0 if none failed and at least one passed, else 1.
"""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
import tap  # noqa: E402

ALONE = {"system", "stress", "vm"}
SKIP_STATUS = 77
EXIT_GRACE = 10  # seconds that sanitized processes may outlive their program
OUTPUT_LINES = 80  # of a failing program's output

# No LeakSanitizer suppressions: Criterion 2.4.1 itself reports none, and as every test runs below a frame of
# libcriterion a suppression that names it would hide all leaks.
# These stand in front of what the caller's environment says, which therefore wins.
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:strict_string_checks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "second_deadlock_stack=1",
}
SLOWER = {"address": 3, "thread": 5}  # by which time limits are stretched


@dataclass
class Program:
    name: str  # "build:suite/test"
    cmd: list
    env: dict
    cwd: str
    timeout: float  # seconds, None for no limit
    tap: bool
    alone: bool
    sanitized: bool


@dataclass
class Outcome:
    """What running a program left behind; kept apart from running so that judge() can be tested with recorded ones."""
    status: int  # as of subprocess: negative for a signal
    timed_out: bool
    out: str
    err: str
    tap: str  # None for plain programs
    sanitizer: str = ""
    seconds: float = 0.0


@dataclass
class Result:
    program: Program
    cases: list = field(default_factory=list)
    output: str = ""
    seconds: float = 0.0

    def count(self, status):
        return sum(case.status == status for case in self.cases)


def introspect(build):
    meson = "/usr/bin/meson" if os.access("/usr/bin/meson", os.X_OK) else "meson"
    answer = subprocess.run([meson, "introspect", "--tests", "--buildoptions", str(build)], check=True,
                            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    answer = json.loads(answer.stdout)
    sanitize = next((o["value"] for o in answer["buildoptions"] if o["name"] == "b_sanitize"), "none")
    return answer["tests"], sanitize


def works(cmd):
    try:
        return subprocess.run(cmd, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    except OSError:
        return False


def programs_of(name, build, suites, tests, sanitize):
    """The programs of one build, those of `suites` only unless it is empty."""
    wrap = []
    if "thread" in sanitize and works(["setarch", "-R", "true"]):
        # ThreadSanitizer's fixed mappings collide with the address randomisation of new kernels.
        wrap = ["setarch", "-R"]
    slower = max([factor for kind, factor in SLOWER.items() if kind in sanitize], default=1)
    found = []
    for test in tests:
        own = [suite.split(":", 1)[-1] for suite in test["suite"]]
        if suites and not suites & set(own):
            continue
        found.append(Program(
            name=f"{name}:{own[0] if own else 'unit'}/{test['name']}",
            cmd=wrap + test["cmd"], env=test.get("env", {}), cwd=test.get("workdir") or str(build),
            timeout=test["timeout"] * slower if test.get("timeout", 0) > 0 else None,
            tap=test.get("protocol") == "tap",
            alone=bool(ALONE & set(own)) or not test.get("is_parallel", True),
            sanitized=sanitize != "none"))
    return found


def is_criterion(cmd):
    """Whether a word of the command is an ELF file linked to libcriterion."""
    for word in cmd[:4]:
        try:
            with open(word, "rb") as file:
                if file.read(4) == b"\x7fELF":
                    return b"libcriterion.so" in file.read()
        except OSError:
            continue
    return False


def session_members(sid):
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == sid and fields[0] != "Z":
            yield int(entry.name)


def end_session(sid, grace):
    """Kills what is left of a program's processes. Boxed Criterion tests are in process groups of their own, hence by
    session. `grace` seconds before that: Criterion exits without waiting for its test processes, and LeakSanitizer does
    its work in their last moments."""
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(session_members(sid)):
        time.sleep(0.02)
    for pid in session_members(sid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def run(program):
    criterion = is_criterion(program.cmd)
    with tempfile.TemporaryDirectory(prefix="godwit-test-") as scratch:
        scratch = Path(scratch)
        cmd = list(program.cmd)
        if criterion:
            cmd = [word for word in cmd if not word.startswith("--tap")] + [f"--tap={scratch / 'tap'}", "--color=never"]
        env = dict(os.environ, **program.env)
        if program.sanitized:
            (scratch / "sanitizer").mkdir()
            for variable, options in SANITIZER_OPTIONS.items():
                parts = [options, env.get(variable, ""), f"log_path={scratch / 'sanitizer' / 'report'}"]
                env[variable] = ":".join(part for part in parts if part)
        start = time.monotonic()
        status, timed_out = None, False
        # Files, not pipes: a process that outlives its parent would hold a pipe open.
        with open(scratch / "out", "wb") as out, open(scratch / "err", "wb") as err:
            try:
                child = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env,
                                         cwd=program.cwd, start_new_session=True)
            except OSError as error:
                err.write(f"cannot start {cmd[0]}: {error.strerror}\n".encode())
                status = 127
            else:
                try:
                    status = child.wait(program.timeout)
                    end_session(child.pid, EXIT_GRACE if program.sanitized else 0)
                except subprocess.TimeoutExpired:
                    timed_out = True
                finally:
                    end_session(child.pid, 0)
                    status = child.wait() if status is None else status
        seconds = time.monotonic() - start

        def text(path):
            return path.read_text(errors="replace") if path.exists() else ""

        printed = text(scratch / "out")
        report = None
        if criterion:
            report = text(scratch / "tap")
        elif program.tap:
            report = printed
        sanitizer = "".join(text(path) for path in sorted(scratch.glob("sanitizer/*")))
        return Outcome(status, timed_out, printed, text(scratch / "err"), report, sanitizer, seconds)


def describe_status(status):
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def judge(program, outcome):
    """Test cases out of what a program left behind."""
    result = Result(program, seconds=outcome.seconds)
    errors = []
    if outcome.timed_out:
        errors.append(f"timed out after {outcome.seconds:.0f} s")
    if outcome.tap is None:
        judge_plain(result, outcome, errors)
    else:
        report = tap.parse(outcome.tap)
        result.cases += report.cases
        if not outcome.timed_out:
            errors += report.errors
            if outcome.status != 0 and (outcome.status < 0 or not result.count("failed")):
                errors.append(describe_status(outcome.status))
            elif report.skip_all is not None and not report.cases:
                result.cases.append(tap.Case("all", "skipped", [report.skip_all]))
    if outcome.sanitizer and not errors and not result.count("failed"):
        errors.append("a sanitizer reported an error")
    if errors:
        result.cases.append(tap.Case("the program as a whole", "failed", ["; ".join(errors)]))
    if result.count("failed"):
        # Standard output that was TAP is already told test by test.
        shown = outcome.err if outcome.tap is outcome.out else outcome.out + outcome.err
        result.output = outcome.sanitizer + shown
    return result


def judge_plain(result, outcome, errors):
    if outcome.timed_out:
        return
    if outcome.status == 0:
        result.cases.append(tap.Case("", "passed"))
    elif outcome.status == SKIP_STATUS:
        lines = [line for line in (outcome.out + outcome.err).splitlines() if line.strip()]
        result.cases.append(tap.Case("", "skipped", [lines[-1].strip() if lines else "no reason given"]))
    else:
        errors.append(describe_status(outcome.status))


def show(result):
    name = result.program.name
    for case in result.cases:
        title = f"{name}: {case.name}" if case.name else name
        if case.status == "skipped":
            print(f"SKIP {title}: {' '.join(case.text)}")
        elif case.status == "failed":
            print(f"FAIL {title}")
            for line in case.text:
                print(f"     {line}")
    if result.output.strip():
        lines = result.output.rstrip().splitlines()
        if len(lines) > OUTPUT_LINES:
            # The beginning says what went wrong first, the end what it led to.
            left_out = len(lines) - OUTPUT_LINES
            lines = lines[:OUTPUT_LINES // 2] + [f"... {left_out} lines left out ..."] + lines[-OUTPUT_LINES // 2:]
        print(f"     output of {' '.join(result.program.cmd)}:")
        for line in lines:
            print(f"     | {line}")
    word = "FAIL" if result.count("failed") else "ok  " if result.count("passed") else "SKIP"
    print(f"{word} {name}: {result.count('passed')} passed, {result.count('failed')} failed, "
          f"{result.count('skipped')} skipped ({result.seconds:.1f} s)", flush=True)


def run_all(programs, jobs):
    """Yields results in the order in which they come."""
    together = [program for program in programs if not program.alone]
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        for done in as_completed([pool.submit(lambda p: judge(p, run(p)), program) for program in together]):
            yield done.result()
    for program in programs:
        if program.alone:
            yield judge(program, run(program))


def parse_regex(text):
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no regular expression: {error}")


def parse_build(text):
    match = re.fullmatch(r"(\w+)=([^:]+)(?::([\w,]+))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=BUILDDIR[:SUITE,...]")
    return match[1], Path(match[2]).resolve(), set(match[3].split(",")) if match[3] else set()


def main(arguments):
    parser = argparse.ArgumentParser(description="Runs meson tests and counts what they report.")
    parser.add_argument("--filter", type=parse_regex, default=re.compile(""), metavar="REGEX",
                        help="only tests whose name, build:suite/test, contains it")
    # One more than there are processors: many tests wait more than they compute.
    parser.add_argument("--jobs", type=int, default=(os.cpu_count() or 1) + 1, metavar="N")
    parser.add_argument("builds", nargs="+", type=parse_build, metavar="NAME=BUILDDIR[:SUITE,...]")
    options = parser.parse_args(arguments)

    programs = []
    for name, build, suites in options.builds:
        programs += programs_of(name, build, suites, *introspect(build))
    programs = [program for program in programs if options.filter.search(program.name)]
    if not programs:
        print("no test has such a name", file=sys.stderr)

    totals = {"passed": 0, "failed": 0, "skipped": 0}
    for result in run_all(programs, max(options.jobs, 1)):
        show(result)
        for status in totals:
            totals[status] += result.count(status)
    print(f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped", flush=True)
    return 1 if totals["failed"] or not totals["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
