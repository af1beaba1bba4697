#!/usr/bin/env python3
"""The built tool end to end: what it refuses, what it proves in a demo, what it moves between two processes, and what
strangers at its port can do to it.

    system.py GODWIT [--tracker KIND] [--nobody] [--tls] [WORD ...]

Only the cases whose name contains one of the words. With a tracker forced every process guest is tracked by it. --nobody
makes all of this, the test itself included, a user without privileges (which takes root). --tls: the cases of TLS, which
are left out without it.
"""
import argparse
import os
import sys
import tempfile
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent / "runner")]
import demo_cases  # noqa: E402
import devices_cases  # noqa: E402
import hostile_cases  # noqa: E402
import kvm_cases  # noqa: E402
import limit_cases  # noqa: E402
import pki_cases  # noqa: E402
import tap  # noqa: E402
import tls_cases  # noqa: E402
import tls_hostile_cases  # noqa: E402
import tls_live_cases  # noqa: E402
import transfer_cases  # noqa: E402
import usage_cases  # noqa: E402
from tool import Tool, become_nobody, public_copy  # noqa: E402


class Context:
    """What a case works with. expect() is one test point; the answers given with it are shown when it fails."""

    def __init__(self, writer, tool, scratch, prefix):
        self.writer, self.tool, self.scratch, self.prefix = writer, tool, scratch, prefix

    def expect(self, passed, name, *answers):
        details = [line for answer in answers for line in (answer.lines() if hasattr(answer, "lines") else [answer])]
        return self.writer.ok(bool(passed), f"{self.prefix}: {name}", details)

    def skip(self, name, reason):
        self.writer.skip(f"{self.prefix}: {name}", reason)


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--tracker")
    parser.add_argument("--nobody", action="store_true")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("words", nargs="*")
    return parser.parse_intermixed_args()


def main():
    arguments = parse_arguments()
    words = arguments.words
    writer = tap.Writer()
    modules = [usage_cases, devices_cases, pki_cases, demo_cases, kvm_cases, transfer_cases, limit_cases, hostile_cases]
    if arguments.tracker or arguments.nobody:
        modules = [demo_cases, transfer_cases, limit_cases, hostile_cases]  # what words are refused is the same for all
    if arguments.tls:
        modules = [tls_cases, tls_hostile_cases, tls_live_cases]
    public = tempfile.TemporaryDirectory(prefix="godwit-cli-")
    path = arguments.path
    if arguments.nobody and os.geteuid() == 0:
        path = public_copy(path, public.name)
        become_nobody(public.name)
    cases = [case for module in modules for case in module.CASES]
    for case in cases:
        name = case.__name__.replace("_", " ")
        if words and not any(word in name for word in words):
            continue
        with tempfile.TemporaryDirectory(prefix="godwit-cli-") as scratch:
            tool = Tool(path, arguments.tracker)
            try:
                case(Context(writer, tool, Path(scratch), name))
            except Exception:
                writer.ok(False, f"{name}: the test itself", [traceback.format_exc()])
            finally:
                tool.clean_up()
    return writer.done()


if __name__ == "__main__":
    sys.exit(main())
