"""The short form of tests/soak over RDMA: each of its runs is a test point here."""
import re
import sys

from machine import ROOT

LIMIT = 600


def soak_over_rdma(t):
    soak = t.machine.run([sys.executable, ROOT / "tests" / "soak" / "soak.py", "--tool", t.build / "cli" / "godwit",
                          "--transport", "rdma", "--short"], LIMIT)
    points = re.findall(r"^(not )?ok \d+ - (.*)\n((?:#.*\n)*)", soak.out, re.M)
    for bad, name, details in points:
        t.expect(not bad, name, details)
    t.expect(f"1..{len(points)}\n" in soak.out and soak.code == any(bad for bad, _, _ in points), "it ends", soak)


CASES = [soak_over_rdma]
