#!/usr/bin/env python3
"""The runner judged by recorded outputs: what counts as passed, failed and skipped, and that nothing bad passes."""
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
import run_suites  # noqa: E402
import tap  # noqa: E402

# Criterion 2.4.1, --tap=FILE, of a program with one test of each kind.
CRITERION = """\
TAP version 13
1..7
# Criterion v2.4.1
#
# Running 7 tests from s
not ok - s::timeout timed out (1.00s)
ok - s::bare_skip  # SKIP test was skipped
ok - s::skip  # SKIP no device here
ok - s::pass  (0.00s)
not ok - s::fail  (0.00s)
  ---
  assertions: 1
  failures:
  - t.c:7: |+
      Assertion failed: The expression (3) == (4) is false.
  ...
not ok - s::early  (0.00s)
  ---
  assertions: 0
  failures:
  ...
not ok - s::crash unexpected signal after t.c:11
"""
CRITERION_GOOD = "TAP version 13\n1..2\n# Criterion v2.4.1\n#\nok - s::a  (0.00s)\nok - s::b  (0.01s)\n"
CRITERION_EMPTY = "TAP version 13\n1..0\n# Criterion v2.4.1\n"

PROGRAM = run_suites.Program("build:unit/x", ["x"], {}, ".", 30, True, False, False)


def counts(status=0, timed_out=False, out="", err="", report=None, sanitizer=""):
    result = run_suites.judge(PROGRAM, run_suites.Outcome(status, timed_out, out, err, report, sanitizer))
    return tuple(result.count(kind) for kind in ("passed", "failed", "skipped"))


def from_tap(text, status=0, **more):
    return counts(status=status, out=text, report=text, **more)


CASES = [
    ("a Criterion program counts test by test", lambda: from_tap(CRITERION, 1), (1, 4, 2)),
    ("a good Criterion program passes", lambda: from_tap(CRITERION_GOOD), (2, 0, 0)),
    ("a Criterion program that ran no tests fails", lambda: from_tap(CRITERION_EMPTY), (0, 1, 0)),
    ("a Criterion program that died before its report fails", lambda: from_tap("", -11), (0, 1, 0)),
    ("a program without a report that exits 0 fails", lambda: from_tap("", 0), (0, 1, 0)),
    ("a program that timed out fails", lambda: from_tap("", -9, timed_out=True), (0, 1, 0)),
    ("what passed before the time-out still counts",
     lambda: from_tap("1..3\nok 1 - a\n", -9, timed_out=True), (1, 1, 0)),
    ("a leak in a test that passed fails",
     lambda: from_tap(CRITERION_GOOD, sanitizer="ERROR: LeakSanitizer"), (2, 1, 0)),
    ("a failing test with a sanitizer report counts once",
     lambda: from_tap("1..1\nnot ok 1 - a\n", 1, sanitizer="ERROR: AddressSanitizer"), (0, 1, 0)),
    ("a sanitizer report fails a plain program", lambda: counts(0, sanitizer="ERROR: LeakSanitizer"), (1, 1, 0)),

    ("numbered points pass", lambda: from_tap("TAP version 13\n1..2\nok 1 - a\nok 2 - b\n"), (2, 0, 0)),
    ("the plan may come last", lambda: from_tap("ok 1 - a\n1..1\n"), (1, 0, 0)),
    ("not ok fails even when the program exits 0", lambda: from_tap("1..2\nok 1 - a\nnot ok 2 - b\n"), (1, 1, 0)),
    ("a skip is a skip", lambda: from_tap("1..1\nok 1 - a # SKIP no g++\n"), (0, 0, 1)),
    ("a skip that is not ok fails", lambda: from_tap("1..1\nnot ok 1 - a # SKIP no g++\n", 1), (0, 1, 0)),
    ("a todo is no pass", lambda: from_tap("1..1\nok 1 - a # TODO later\n"), (0, 0, 1)),
    ("a program may skip as a whole", lambda: from_tap("1..0 # SKIP no network\n"), (0, 0, 1)),
    ("a plan of none without a reason fails", lambda: from_tap("1..0\n"), (0, 1, 0)),
    ("fewer tests than planned fail", lambda: from_tap("1..3\nok 1 - a\nok 2 - b\n"), (2, 1, 0)),
    ("more tests than planned fail", lambda: from_tap("1..1\nok 1 - a\nok 2 - b\n"), (2, 1, 0)),
    ("no plan fails", lambda: from_tap("ok 1 - a\n"), (1, 1, 0)),
    ("two plans fail", lambda: from_tap("1..1\nok 1 - a\n1..1\n"), (1, 1, 0)),
    ("numbers out of order fail", lambda: from_tap("1..2\nok 1 - a\nok 3 - b\n"), (2, 1, 0)),
    ("a bail-out fails once", lambda: from_tap("1..3\nok 1 - a\nBail out! no memory\n", 1), (1, 1, 0)),
    ("an exit status without a failing test fails", lambda: from_tap("1..1\nok 1 - a\n", 3), (1, 1, 0)),
    ("an exit status with a failing test counts once", lambda: from_tap("1..1\nnot ok 1 - a\n", 1), (0, 1, 0)),
    ("a crash after a failing test counts too", lambda: from_tap("1..1\nnot ok 1 - a\n", -6), (0, 2, 0)),
    ("a nested subtest is not counted",
     lambda: from_tap("1..1\n    ok 1 - inner\n    1..1\nok 1 - outer\n"), (1, 0, 0)),

    ("a plain program that exits 0 passes", lambda: counts(0), (1, 0, 0)),
    ("a plain program that exits 1 fails", lambda: counts(1), (0, 1, 0)),
    ("a plain program that exits 77 is skipped", lambda: counts(77, out="no userfaultfd\n"), (0, 0, 1)),
    ("a plain program that is killed fails", lambda: counts(-11), (0, 1, 0)),
    ("a plain program that timed out fails", lambda: counts(-9, timed_out=True), (0, 1, 0)),
]


def text_of(status, **outcome):
    result = run_suites.judge(PROGRAM, run_suites.Outcome(status, **outcome))
    return [" ".join(case.text) for case in result.cases]


def real(script, timeout=30):
    """Runs a shell script the way a plain test is run."""
    program = run_suites.Program("build:unit/sh", ["/bin/sh", "-c", script], {}, "/", timeout, False, False, False)
    result = run_suites.judge(program, run_suites.run(program))
    return tuple(result.count(kind) for kind in ("passed", "failed", "skipped")), result


def main():
    t = tap.Writer()
    for name, run, expected in CASES:
        got = run()
        t.ok(got == expected, name, [f"(passed, failed, skipped) is {got}, not {expected}"])

    names = [case.name for case in tap.parse(CRITERION).cases]
    t.ok(names[3] == "s::pass" and names[6].startswith("s::crash"), "names lose Criterion's times", names)
    details = tap.parse(CRITERION).cases[4].text
    t.ok(any("(3) == (4)" in line for line in details), "a failure keeps its assertion", details)
    reason = text_of(77, timed_out=False, out="one\nno userfaultfd\n", err="", tap=None)
    t.ok(reason == ["no userfaultfd"], "the last line is the reason of a skip", reason)
    reason = text_of(-11, timed_out=False, out="", err="", tap=None)
    t.ok("SIGSEGV" in reason[0], "a signal is named", reason)

    got, result = real("echo broken pipe dream; exit 4")
    t.ok(got == (0, 1, 0) and "pipe dream" in result.output, "a failing program's output is kept", [got, result.output])
    got, _ = real("exec sleep 60", timeout=0.2)
    t.ok(got == (0, 1, 0), "a program that hangs is ended", [got])
    got, result = real("sleep 60 & exit 0")
    t.ok(got == (1, 0, 0) and result.seconds < 30, "a process left behind holds nobody up", [got, result.seconds])
    got, _ = real("kill -SEGV $$")
    t.ok(got == (0, 1, 0), "a program that crashes fails", [got])

    suites = [{"name": "a", "suite": ["godwit:unit"], "cmd": ["a"], "timeout": 10, "protocol": "exitcode"},
              {"name": "b", "suite": ["godwit:stress"], "cmd": ["b"], "timeout": 10, "protocol": "tap"}]
    found = run_suites.programs_of("asan", Path("/"), {"stress"}, suites, "address,undefined")
    t.ok([p.name for p in found] == ["asan:stress/b"], "suites are chosen by name", [p.name for p in found])
    t.ok(found[0].alone and found[0].tap and found[0].timeout == 30, "stress runs alone and gets time",
         found)
    return t.done()


if __name__ == "__main__":
    sys.exit(main())
