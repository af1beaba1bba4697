"""Driving the built tool: run it to its end, or keep it running beside the test, and read what it said."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "perf" / "lib"))
from child import Child  # noqa: E402

RUN_LIMIT = 60  # seconds for anything the tool does here


class Answer:
    def __init__(self, words, code, out, err):
        self.words, self.code, self.out, self.err = words, code, out, err

    @property
    def json(self):
        """The object on stdout; None when there is not exactly one."""
        try:
            value = json.loads(self.out)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    @property
    def errors(self):
        """Lines that report an error; warnings are not errors."""
        return [line for line in self.err.splitlines()
                if line.startswith("godwit: ") and not line.startswith("godwit: warning: ")]

    def lines(self):
        """What to print beside a test that failed."""
        yield "$ " + " ".join(self.words)
        yield f"exit {self.code}"
        yield from ("out: " + line[:400] for line in self.out.splitlines())
        yield from ("err: " + line[:400] for line in self.err.splitlines()[-12:])


class Running(Child):
    """A tool that runs beside the test."""

    def __init__(self, words, preexec=None, group=False, env=None):
        super().__init__(words, stdin=subprocess.PIPE, preexec_fn=preexec, start_new_session=group, env=env)

    def wait_for(self, pattern, limit=RUN_LIMIT):
        """The match of pattern in stderr, once it is there; None when the tool ends or the time is over before."""
        return self.find(pattern, self.err, limit)

    def write(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def signal(self, number=signal.SIGINT, group=False):
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def end(self, limit=RUN_LIMIT):
        """Waits for the end. A tool that does not end is killed, and its exit code is None."""
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.kill()
            code = None
        self.join()
        try:
            self.process.stdin.close()
        except OSError:
            pass
        return Answer(self.words, code, "".join(self.out), "".join(self.err))


NOBODY = 65534  # uid and gid of a user that owns nothing


def become_nobody(folder=None):
    """Only root can. The folder is given to nobody, so that it can be removed."""
    if folder:
        os.chown(folder, NOBODY, NOBODY)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def public_copy(path, folder):
    """A copy of the tool for anybody, in a folder that is opened to them: the build may be its owner's alone."""
    os.chmod(folder, 0o755)
    copy = shutil.copy(path, folder)
    os.chmod(copy, 0o755)
    return copy


class Tool:
    def __init__(self, path, tracker=None, preexec=None):
        """With a tracker, every guest that writes is tracked by it; with preexec, every process is prepared by that."""
        self.path, self.tracker, self.preexec = path, tracker, preexec
        self.started = []

    def start(self, *words, **how):
        forced = []
        if self.tracker and words[0] in ("demo", "send") and not {"idle", "kvm", "--tracker", "--memory-from", "--help"} & {*words}:
            forced = ["--tracker", self.tracker]
        self.started.append(Running([self.path, *words, *forced], **{"preexec": self.preexec, **how}))
        return self.started[-1]

    def clean_up(self):
        """Ends what a test that failed half-way left running."""
        for running in self.started:
            if running.process.poll() is None:
                running.process.kill()
                running.end()
        self.started.clear()

    def run(self, *words, limit=RUN_LIMIT, **how):
        running = self.start(*words, **how)
        running.process.stdin.close()
        return running.end(limit)

    def recv(self, *words, uri="tcp:127.0.0.1:0", **how):
        """A destination that listens: (it, the URI to send to). The URI is None when it never got there."""
        running = self.start("recv", uri, *words, **how)
        match = running.wait_for(r"listening on (\S+)", 15)
        return running, match and match[1]


def memory_of(pid):
    """{"VmRSS": bytes, "RssShmem": bytes, ...} of a living process; empty once it is gone."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", status.read(), re.M)}
    except OSError:
        return {}
