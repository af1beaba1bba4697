"""The machine itself: what commands see, what comes back from them, and how they end."""
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import initramfs
from agent import KILL_GRACE

NOBODY = 65534


def boots_debians_kernel(t):
    answer = t.machine.run("uname -n; uname -r")
    t.expect(re.fullmatch(r"vm\n\d+\.\d+\.\d+-\d+-amd64\n", answer.out), "a generic kernel of Debian's", answer)
    oops = [line for line in t.machine.console().splitlines() if re.search(r"BUG|WARNING|Oops|Call Trace", line)]
    t.expect(not oops, "nothing bad on the console", *oops)


def compiles_without_a_warning(t):
    try:
        initramfs.compile_init(t.scratch / "init", "-Werror")
        said = None
    except Exception as error:
        said = error
    t.expect(said is None, "init and agent", said)


def shows_the_hosts_files(t):
    answer = t.machine.run(["sha256sum", "/bin/sh", Path(__file__)])
    here = subprocess.run(["sha256sum", "/bin/sh", __file__], capture_output=True, text=True).stdout
    t.expect(answer.code == 0 and answer.out == here, "under the same names", answer)
    t.expect(t.machine.run("pwd").out == f"{Path.cwd()}\n", "and starts where we are")
    answer = t.machine.run(["touch", "/etc/godwit-vm", Path(__file__)])
    t.expect(answer.code == 1 and "Read-only" in answer.err, "read-only", answer)
    answer = t.machine.run("ls -A /run/lock /dev/shm; test -w /tmp && test -w /run && test ! -e /dev/kvm; echo $?")
    t.expect(answer.out.endswith("0\n"), "/tmp, /run and /dev are its own, without /dev/kvm", answer)


def shares_the_scratch_folder(t):
    (t.scratch / "to").write_text("from the host")
    answer = t.machine.run(f"cd {t.scratch} && cat to && echo from the machine >back && truncate -s 3M big")
    t.expect(answer.code == 0 and answer.out == "from the host", "what the host wrote is there", answer)
    t.expect((t.scratch / "back").read_text() == "from the machine\n", "what a command wrote is on the host at once")
    t.expect((t.scratch / "big").stat().st_size == 3 << 20, "whole")


def brings_back_what_was_written(t):
    answer = t.machine.run(r"printf 'a\nb'; printf 'c\n' >&2")
    t.expect(tuple(answer) == (0, "a\nb", "c\n"), "output and errors apart", answer)
    taken = bytearray()
    job = t.machine.spawn(["head", "-c", "3000000", "/dev/zero"], out=taken.extend)
    answer = job.wait()
    t.expect(answer.code == 0 and taken == bytes(3000000), f"bytes as they are: {len(taken)}", answer)
    every = bytes(range(256))
    (t.scratch / "bytes").write_bytes(every)
    taken.clear()
    t.machine.spawn(["cat", t.scratch / "bytes"], out=taken.extend).wait()
    t.expect(taken == every, "all 256 of them", bytes(taken))


def brings_back_how_it_ended(t):
    t.expect(t.machine.run("exit 42").code == 42, "exit status")
    t.expect(t.machine.run("kill -SEGV $$").code == -signal.SIGSEGV, "signal")
    answer = t.machine.run(["/no/such/program"])
    t.expect(answer.code == 127 and "/no/such/program" in answer.err, "no such program", answer)
    answer = t.machine.run(["/etc/passwd"])
    t.expect(answer.code == 126, "no program", answer)
    answer = t.machine.run("true", cwd="/no/such/folder")
    t.expect(answer.code == 127 and "/no/such/folder" in answer.err, "no such folder", answer)


def ends_what_takes_too_long(t):
    job = t.machine.spawn("trap '' TERM INT; echo begun; while :; do sleep 1; done")
    job.wait_for("begun")
    begin = time.monotonic()
    answer = job.wait(1)
    took = time.monotonic() - begin
    t.expect(answer.code is None and answer.out == "begun\n", "without a status, with what it wrote", answer)
    t.expect(1 <= took < 1 + KILL_GRACE, f"in time: {took:.1f} s")
    t.expect(t.machine.run("echo on").out == "on\n", "and the machine goes on")


def runs_many_at_once(t):
    jobs = [t.machine.spawn(f"sleep 1; echo {number}; exit {number}") for number in range(8)]
    answers = [job.wait() for job in jobs]
    good = all(tuple(answer) == (number, f"{number}\n", "") for number, answer in enumerate(answers))
    t.expect(good, "each has its own answer", *answers)
    found = []
    threads = [threading.Thread(target=lambda: found.append(t.machine.run("echo x").out)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    t.expect(found == ["x\n"] * 4, "from several threads", found)


def lets_a_command_be_watched_and_signalled(t):
    job = t.machine.spawn("trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done")
    t.expect(job.wait_for("ready"), "output comes while it runs", job.out)
    t.expect(job.code is None, "it has not ended")
    job.signal(signal.SIGINT)
    answer = job.wait()
    t.expect(answer.code == 5 and "caught" in answer.out, "it gets the signal", answer)
    t.expect(t.machine.spawn("echo other").wait_for("never") is None, "nobody waits for what an ended one did not say")


def leaves_nothing_of_a_command_behind(t):
    answer = t.machine.run("sleep 1234 & echo $!")
    t.expect(answer.code == 0, "a command with a process behind its back ends", answer)
    gone = t.machine.run(f"while test -e /proc/{answer.out.strip()}; do sleep 0.05; done", 60)
    t.expect(gone.code == 0, "and its process with it", gone)


def is_whoever_one_says(t):
    t.expect(t.machine.run("id -u").out == "0\n", "root by itself")
    answer = t.machine.run("id -u; id -g; id -G; grep CapEff /proc/self/status; touch /run/x", user=NOBODY)
    *ids, privileges = answer.out.splitlines()
    t.expect(ids == [str(NOBODY)] * 3 and privileges.endswith("0" * 16), "a user without privileges", answer)
    t.expect(answer.code != 0 and "denied" in answer.err, "who is denied things", answer)


def limits_locked_memory(t):
    answer = t.machine.run("ulimit -l", user=NOBODY, memlock=64 << 10)
    t.expect(answer.out == "64\n", "to a number of bytes", answer)
    answer = t.machine.run("ulimit -l", user=NOBODY, memlock="unlimited")
    t.expect(answer.out == "unlimited\n", "or not at all", answer)


def has_a_small_environment(t):
    os.environ["GODWIT_VM_SECRET"] = "x"
    answer = t.machine.run("env", env={"GODWIT_VM_ASKED": "a b"})
    t.expect("GODWIT_VM_ASKED=a b\n" in answer.out and "SECRET" not in answer.out, "and what it is given", answer)


def loads_modules_when_they_are_wanted(t):
    answer = t.machine.run("! grep -q ^dummy /proc/modules && ip link add d0 type dummy && grep ^dummy /proc/modules")
    t.expect(answer.code == 0, "of the kernel's package", answer)


CASES = [boots_debians_kernel, compiles_without_a_warning, shows_the_hosts_files, shares_the_scratch_folder,
         brings_back_what_was_written, brings_back_how_it_ended, ends_what_takes_too_long, runs_many_at_once,
         lets_a_command_be_watched_and_signalled, leaves_nothing_of_a_command_behind, is_whoever_one_says,
         limits_locked_memory, has_a_small_environment, loads_modules_when_they_are_wanted]
