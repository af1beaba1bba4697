"""The Test Anything Protocol, both ways: parse() reads what a test program printed, Writer prints it.

Version 13 as http://testanything.org describes it, numbers optional because Criterion leaves them out. Indented lines
(Criterion's YAML, nested subtests) belong to the test point before them. Whatever makes the count doubtful is an error
of the whole program: no plan, a plan that was not kept, numbers out of order, a bail-out.
"""
import re
from dataclasses import dataclass, field

PLAN = re.compile(r"1\.\.(\d+)\s*(?:#\s*(?:skip)\S*\s*(.*))?$", re.I)
POINT = re.compile(r"(not )?ok\b\s*(\d+)?\s*(?:-\s*)?(.*)$")
DIRECTIVE = re.compile(r"(.*?)\s*(?<!\\)#\s*(skip|todo)\S*\s*(.*)$", re.I)
CRITERION_TIME = re.compile(r"\s+\(\d+\.\d+s\)$")


@dataclass
class Case:
    name: str
    status: str  # "passed", "failed" or "skipped"
    text: list = field(default_factory=list)  # the reason of a skip, the lines that follow a failure


@dataclass
class Report:
    cases: list = field(default_factory=list)
    errors: list = field(default_factory=list)  # sentences about the stream itself
    skip_all: str = None  # the reason of a plan of 1..0 that carries one


def parse(text):
    report = Report()
    plan = None
    bailed = False
    for line in text.splitlines():
        if not line.strip() or line.startswith("TAP version"):
            continue
        if line[0] in " \t#":
            if report.cases and report.cases[-1].status == "failed":
                report.cases[-1].text.append(line)
            continue
        if line.startswith("Bail out!"):
            report.errors.append("bailed out: " + (line[len("Bail out!"):].strip() or "no reason given"))
            bailed = True
            continue
        match = PLAN.match(line)
        if match:
            if plan is not None:
                report.errors.append("has two plans")
            plan = int(match[1])
            if plan == 0 and match[2] is not None:
                report.skip_all = match[2] or "no reason given"
            continue
        match = POINT.match(line)
        if match:
            report.cases.append(_case(match, report))
    if bailed:
        return report
    if plan is None:
        report.errors.append("printed no plan")
    elif plan != len(report.cases):
        report.errors.append(f"planned {plan} tests and reported {len(report.cases)}")
    elif plan == 0 and report.skip_all is None:
        report.errors.append("ran no tests")
    return report


def _case(match, report):
    failed, number, name = match[1] is not None, match[2], match[3]
    if number is not None and int(number) != len(report.cases) + 1:
        report.errors.append(f"numbers test {number} where {len(report.cases) + 1} was due")
    status, reason = ("failed" if failed else "passed"), []
    directive = DIRECTIVE.match(name)
    if directive:
        name, kind = directive[1], directive[2].lower()
        words = directive[3] or "no reason given"
        if kind == "todo":
            # A test that is expected to fail is no evidence either way.
            status, reason = "skipped", ["todo: " + words]
        elif not failed:
            status, reason = "skipped", [words]
    name = CRITERION_TIME.sub("", name).strip() or f"test {len(report.cases) + 1}"
    return Case(name, status, reason)


class Writer:
    """Prints test points as they come and the plan at the end."""

    def __init__(self):
        self.count = 0
        self.failed = 0
        print("TAP version 13", flush=True)

    def ok(self, passed, name, details=()):
        """details: lines that explain a failure, printed only then."""
        self.count += 1
        print(f"{'ok' if passed else 'not ok'} {self.count} - {name}")
        if not passed:
            self.failed += 1
            for detail in details:
                for line in str(detail).splitlines():
                    print(f"#   {line}")
        return passed

    def skip(self, name, reason):
        self.count += 1
        print(f"ok {self.count} - {name} # SKIP {reason}")

    def done(self):
        """The exit status for the program."""
        print(f"1..{self.count}", flush=True)
        return 1 if self.failed else 0
