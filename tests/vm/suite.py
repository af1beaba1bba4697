#!/usr/bin/env python3
"""The tests in virtual machines.

    suite.py BUILD one|pair|command|tls|rdma|rdma-pair|rdma-soak [WORD ...]

one: cases that share one machine; pair: cases that share two on a wire; command: the commands vm and pair, each with a
machine of its own; tls: TLS by the kernel, and beside RDMA; rdma, rdma-pair: godwit over RDMA in one machine, and
between two; rdma-soak: the short form of tests/soak over RDMA. Only the cases whose name contains one of the words.
"""
import argparse
import os
import sys
import tempfile
import traceback
from contextlib import nullcontext
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent / "runner")]
import command_cases  # noqa: E402
import godwit_cases  # noqa: E402
import godwit_rdma_cases  # noqa: E402
import godwit_rdma_fault_cases  # noqa: E402
import godwit_tls_cases  # noqa: E402
import machine_cases  # noqa: E402
import pair_cases  # noqa: E402
import pair_rdma_cases  # noqa: E402
import rdma_cases  # noqa: E402
import soak_cases  # noqa: E402
import tap  # noqa: E402
from host import Unavailable  # noqa: E402
from machine import Machine  # noqa: E402
from wire import Pair  # noqa: E402


class Context:
    """What a case works with. expect() is one test point; the answers given with it are shown when it fails.

    machine: the one machine; a, b: the two of a pair; build: the build directory; scratch: a folder that machines may
    write to.
    """

    def __init__(self, writer, build, scratch, machines):
        self.writer, self.build, self.scratch, self.prefix = writer, build, scratch, ""
        self.machines = machines
        self.machine = machines[0] if machines else None
        self.a, self.b = machines if len(machines) == 2 else (None, None)

    def expect(self, passed, name, *answers):
        details = [line for answer in answers for line in (answer.lines() if hasattr(answer, "lines") else [answer])]
        return self.writer.ok(bool(passed), f"{self.prefix}: {name}", details)


def one(build, scratch):
    return Machine(build=build, scratch=scratch)


def pair(build, scratch):
    return Pair(build=build, scratch=scratch)


def none(build, scratch):
    return nullcontext([])


KINDS = {"one": (one, [machine_cases, rdma_cases, godwit_cases]), "pair": (pair, [pair_cases]),
         "command": (none, [command_cases]), "tls": (one, [godwit_tls_cases]),
         "rdma": (one, [godwit_rdma_cases, godwit_rdma_fault_cases]),
         "rdma-pair": (pair, [pair_rdma_cases]), "rdma-soak": (one, [soak_cases])}


def run_case(t, case):
    t.prefix = case.__name__.replace("_", " ")
    try:
        case(t)
    except Unavailable:
        raise
    except Exception:
        t.writer.ok(False, f"{t.prefix}: the test itself", [traceback.format_exc()])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=Path)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    make, modules = KINDS[options.kind]
    cases = [case for module in modules for case in module.CASES]
    if options.words:
        cases = [case for case in cases if any(word in case.__name__.replace("_", " ") for word in options.words)]
    writer = tap.Writer()
    with tempfile.TemporaryDirectory(prefix="godwit-vm-") as scratch:
        os.chmod(scratch, 0o755)  # cases look into it as a user without privileges
        try:
            with make(options.build, Path(scratch)) as made:
                machines = made if isinstance(made, list) else [made]
                for case in cases:
                    run_case(Context(writer, options.build.resolve(), Path(scratch), machines), case)
        except Unavailable as error:
            writer.skip(f"{options.kind}: all of it", error)
    return writer.done()


if __name__ == "__main__":
    sys.exit(main())
