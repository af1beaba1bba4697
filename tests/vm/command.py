"""What the commands vm and pair have in common."""
import argparse
import signal
import sys
from pathlib import Path

from agent import Lost
from host import Unavailable
from machine import BOOT_LIMIT, BUILD, STOP_LIMIT

TIMED_OUT, NO_MACHINE = 124, 125


def variable(text):
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def make_parser(description, usage):
    parser = argparse.ArgumentParser(description=description, usage=usage,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", metavar="SIZE", help="of a machine (2G; 1G in a pair)")
    parser.add_argument("--cpus", type=int, metavar="N", help="of a machine (2; 1 in a pair)")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="for the command (600)")
    parser.add_argument("--env", type=variable, action="append", default=[], metavar="NAME=VALUE",
                        help="for the command, which has little of our environment")
    parser.add_argument("--no-rdma", action="store_true", help="no rxe0, a second faster")
    parser.add_argument("--memlock", metavar="BYTES|unlimited", help="the command's RLIMIT_MEMLOCK; does not bind root")
    parser.add_argument("--user", type=int, metavar="UID", help="who runs the command, without privileges (root)")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="a folder that the command may write to")
    parser.add_argument("--cache", type=Path, metavar="DIR", help=f"for the kernel ({BUILD / 'vm'})")
    parser.add_argument("--verbose", action="store_true", help="say what takes how long; show the console")
    return parser


def parse(parser, count):
    """The options, and `count` commands, each behind a "--". Only the last may contain one itself."""
    words, *commands = split(sys.argv[1:], count)
    options = parser.parse_args(words)
    if len(commands) < count or not all(commands):
        parser.error("a command is missing")
    return options, commands


def split(words, count):
    if count == 0 or "--" not in words:
        return [words]
    at = words.index("--")
    return [words[:at], *split(words[at + 1:], count - 1)]


def machine_options(options):
    """For Machine. None stands for its default."""
    given = {"memory": options.memory, "cpus": options.cpus, "cache": options.cache}
    return {"rdma": not options.no_rdma, "scratch": options.scratch, "verbose": options.verbose,
            "deadline": options.timeout + BOOT_LIMIT + STOP_LIMIT,
            **{name: value for name, value in given.items() if value is not None}}


def job_options(options):
    return {"env": dict(options.env), "user": options.user, "memlock": options.memlock}


def pass_signals_on(jobs):
    """What becomes of Ctrl-C is the command's to decide, within its time; at the second, everything ends."""
    def pass_on(number, frame):
        signal.signal(number, signal.default_int_handler)
        for job in jobs:
            job.signal(number, group=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)


def status(name, code, options):
    """Our exit status for a command's."""
    if code is None:
        print(f"{name}: the command was ended after {options.timeout:g} s", file=sys.stderr)
        return TIMED_OUT
    return code if code >= 0 else 128 - code


def main(name, run):
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody reads any more: we end, and the machine with us
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run()
    except (Unavailable, Lost) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return NO_MACHINE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
