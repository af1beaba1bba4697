"""godwit on Debian's 6.1: the fallback of dirty tracking is the default there, and the only one."""
import json
import re

import tap

NOBODY = 65534
PROGRAMS = ["guest/guest-tracker-test", "guest/guest-process-test", "guest/guest-holes-test",
            "engine/engine-migration-test"]
# What may be left out: the other tracker, and what goes with it.
LACKS = re.compile(r"Linux 6\.7|PAGEMAP_SCAN")


def passes_its_unit_tests(t):
    t.machine.check("echo 64 >/proc/sys/vm/nr_hugepages")
    for program in PROGRAMS:
        answer = t.machine.run([t.build / "tests" / program, "--tap=/tmp/tap", "--color=never"], 400)
        report = tap.parse(t.machine.run("cat /tmp/tap").out)
        passed = [case for case in report.cases if case.status == "passed"]
        skipped = [case for case in report.cases if case.status == "skipped"]
        bad = [case for case in report.cases if case.status == "failed"]
        bad += [case for case in skipped if not LACKS.search(" ".join(case.text))]
        t.expect(answer.code == 0 and passed and not report.errors and not bad,
                 f"{program}: {len(passed)} of them, {len(skipped)} want a newer kernel",
                 *report.errors, *(f"{case.status}: {case.name}: {line}" for case in bad for line in case.text), answer)
    t.machine.check("echo 0 >/proc/sys/vm/nr_hugepages")


def demo(t, *words, user=None):
    answer = t.machine.godwit("demo", "--json", "--ram", "64M", "--dirty-rate", "20M", *words, user=user)
    try:
        return answer, json.loads(answer.out)
    except ValueError:
        return answer, {}


def proves_a_good_migration(t):
    for words in (["--transport", "tcp"], ["--transport", "unix"], ["--backing", "anon"]):
        for user in (None, NOBODY):
            answer, report = demo(t, *words, user=user)
            good = answer.code == 0 and report.get("status") == "completed" and report.get("verified") is True
            t.expect(good and report["guest"]["tracker"] == "fault",
                     f"{' '.join(words)} as {'root' if user is None else 'nobody'}", answer)


def finds_a_planted_fault(t):
    answer, report = demo(t, "--x-fault", "drop-dirty-bit")
    t.expect(answer.code == 1 and report.get("status") == "completed" and report.get("verified") is False,
             "a lost dirty bit", answer)


def says_what_the_kernel_lacks(t):
    answer, report = demo(t, "--tracker", "scan")
    t.expect(answer.code == 1 and report.get("status") == "failed" and "needs Linux 6.7" in answer.err, "scan", answer)
    answer, report = demo(t, "--guest", "kvm")
    t.expect(answer.code == 1 and "/dev/kvm" in answer.err, "kvm", answer)


CASES = [passes_its_unit_tests, proves_a_good_migration, finds_a_planted_fault, says_what_the_kernel_lacks]
