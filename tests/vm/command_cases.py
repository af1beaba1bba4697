"""The commands vm and pair: what comes out of them, and that nothing of them stays."""
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import host
from agent import Answer, Lost
from host import Unavailable
from machine import Machine

HERE = Path(__file__).resolve().parent
LIMIT = 120  # seconds for a command


def start(t, name, *words):
    words = [str(word) for word in words]
    return subprocess.Popen([sys.executable, HERE / name, "--cache", t.build / "vm", *words], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end(process):
    out, err = process.communicate(timeout=LIMIT)
    return Answer(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def run(t, *words):
    return end(start(t, *words))


def start_endless(t, trap):
    """vm with a command that does not end by itself, and the process of its machine."""
    process = start(t, "vm", "--no-rdma", "--", "sh", "-c", f"{trap}; echo up; while :; do sleep 0.1; done")
    process.stdout.readline()
    return process, [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_gone(pids):
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(pids) and not any(map(is_alive, pids))


def is_as_good_as_the_command_itself(t):
    (t.scratch / "in").write_text("in\n")
    answer = run(t, "vm", "--no-rdma", "--env", "WHAT=x y", "--scratch", t.scratch, "--user", "65534",
                 "--memlock", "65536", "--", "sh", "-c",
                 f"echo $WHAT; pwd; id -u; ulimit -l; cat {t.scratch}/in; echo oops >&2; exit 7")
    t.expect(answer.code == 7 and answer.err == "oops\n", "status and errors", answer)
    t.expect(answer.out == f"x y\n{Path.cwd()}\n65534\n64\nin\n", "output, by its options", answer)
    answer = run(t, "vm", "--no-rdma", "--", "sh", "-c", "kill -TERM $$")
    t.expect(answer.code == 128 + signal.SIGTERM, "a signal is 128 and more", answer)


def ends_what_takes_too_long(t):
    answer = run(t, "vm", "--no-rdma", "--timeout", "5", "--", "sh", "-c", "echo begun; exec sleep 1000")
    t.expect(answer.code == 124 and answer.out == "begun\n" and "after 5 s" in answer.err, "with 124", answer)


def hands_ctrl_c_to_the_command(t):
    process, machines = start_endless(t, "trap 'echo caught; exit 3' INT")
    process.send_signal(signal.SIGINT)
    answer = end(process)
    t.expect(answer.code == 3 and answer.out == "caught\n", "which ends as it likes", answer)
    t.expect(all_gone(machines), "no machine is left")
    process, machines = start_endless(t, "trap 'echo caught' INT")
    process.send_signal(signal.SIGINT)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    answer = end(process)
    t.expect(answer.code == 130, "or does not, and is ended by the second", answer)
    t.expect(all_gone(machines), "no machine is left then either")


def leaves_nothing_behind_when_it_is_killed(t):
    process, machines = start_endless(t, ":")
    process.kill()
    end(process)
    t.expect(all_gone(machines), "no machine is left")


def reason(call, kind):
    """The text of the exception that a call must raise."""
    try:
        call()
    except kind as error:
        return str(error)
    return ""


def says_why_there_is_no_machine(t):
    said = reason(lambda: host.need("no-such-program", "its-package"), Unavailable)
    t.expect(said == "no-such-program is missing: apt-get install its-package", "a missing program", said)
    with tempfile.TemporaryDirectory(prefix="godwit-vm-") as empty:
        file = Path(empty) / "file"
        file.write_text("")
        answer = run(t, "vm", "--cache", file / "vm", "--", "true")
        lines = answer.err.splitlines()
        t.expect(answer.code == 125 and len(lines) == 1 and str(file) in lines[0], "no cache", answer)
    answer = run(t, "vm", "--memory", "1M", "--", "true")
    t.expect(answer.code == 125 and answer.err.startswith("vm: the machine vm went away"), "no memory", answer)
    answer = run(t, "vm")
    t.expect(answer.code == 2, "no command", answer)


def says_what_became_of_a_machine(t):
    with Machine(build=t.build, rdma=False) as machine:
        said = reason(lambda: machine.run("echo c >/proc/sysrq-trigger"), Lost)
    t.expect("went away" in said and "Kernel panic" in said, "its last words, when it crashed", said)
    said = reason(lambda: Machine(build=t.build, deadline=0.5).start(), Lost)
    t.expect("its 0.5 s are over" in said, "its deadline, when that was it", said)


def runs_a_pair(t):
    answer = run(t, "pair", "--", "sh", "-c", "uname -n; printf 1; sleep 0.2; echo 2; exit 0",
                 "--", "sh", "-c", "uname -n >&2; printf end; exit 5")
    t.expect(answer.code == 5, "the status is that of the one that failed", answer)
    lines = sorted(answer.out.splitlines())
    t.expect(lines == ["A: 12", "A: A", "B: end"] and "B: B\n" in answer.err, "labelled lines", answer)


CASES = [is_as_good_as_the_command_itself, ends_what_takes_too_long, hands_ctrl_c_to_the_command,
         leaves_nothing_behind_when_it_is_killed, says_why_there_is_no_machine, says_what_became_of_a_machine,
         runs_a_pair]
