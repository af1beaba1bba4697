"""The host's end of the control port: commands in the machine, and what becomes of them. agent.h has the frames."""
import os
import re
import socket
import struct
import threading
import time
from collections import namedtuple

HEAD = struct.Struct("=III")
KILL_GRACE = 20  # seconds for a killed command to be gone; one that is not has lost the machine
DEFAULT_LIMIT = 120  # seconds for a command


class Lost(Exception):
    """The machine is gone, or does not answer. One line, and the end of its console."""


class Answer(namedtuple("Answer", "code out err")):
    """code: the exit status, negative for a signal, None for a command that was ended because its time was over."""

    def lines(self):
        """What to print beside a test that failed."""
        yield f"exit {self.code}"
        yield from ("out: " + line[:400] for line in self.out.splitlines()[-40:])
        yield from ("err: " + line[:400] for line in self.err.splitlines()[-20:])


class Job:
    """A command that runs in the machine. Every method may be called from any thread."""

    def __init__(self, agent, number, sinks):
        self._agent, self._number, self._sinks = agent, number, sinks
        self._written = (bytearray(), bytearray())
        self.code = None  # until it has ended

    @property
    def out(self):
        return bytes(self._written[0]).decode(errors="replace")

    @property
    def err(self):
        return bytes(self._written[1]).decode(errors="replace")

    def signal(self, number, group=False):
        """To the command's first process, or to all of its process group."""
        self._agent.send(b"K", self._number, bytes([number, group]))

    def kill(self):
        self.signal(9, group=True)

    def wait(self, limit=DEFAULT_LIMIT):
        """The Answer. A command that does not end within `limit` seconds is killed, and its code is None."""
        if self._agent.wait(lambda: self.code is not None, limit):
            return Answer(self.code, self.out, self.err)
        self.kill()
        if not self._agent.wait(lambda: self.code is not None, KILL_GRACE):
            raise self._agent.lost("does not answer")
        return Answer(None, self.out, self.err)

    def wait_for(self, pattern, limit=DEFAULT_LIMIT):
        """The match of a regular expression in what was written (output, then errors), as soon as it is there; None
        when the command ends or the time is over before."""
        def match():
            return re.search(pattern, self.out) or re.search(pattern, self.err)
        self._agent.wait(lambda: match() or self.code is not None, limit)
        return match()

    def _take(self, kind, payload):
        """By the reader, under the lock; sinks are called without."""
        if kind == b"X":
            self.code = os.waitstatus_to_exitcode(struct.unpack("=i", payload)[0])
            return None
        which = 0 if kind == b"O" else 1
        if self._sinks[which]:
            return self._sinks[which]
        self._written[which].extend(payload)
        return None


class Agent:
    def __init__(self, connection, describe_loss):
        """describe_loss(what) is the Lost to raise when the machine is lost."""
        self._connection, self.lost = connection, describe_loss
        # Two locks: the reader must go on while somebody waits for room to send, or both sides wait for ever.
        # Recursive, because a signal handler may send.
        self._sending = threading.RLock()
        self._condition = threading.Condition()
        self._jobs, self._last = {}, 0
        self._ready = self._gone = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def spawn(self, words, cwd, env, user=None, memlock=None, out=None, err=None):
        """user: a number. memlock: bytes or "unlimited". out, err: called with bytes as they come, by the reading
        thread, instead of collecting them."""
        texts = [cwd, "" if user is None else user, "" if memlock is None else memlock, len(words), *words,
                 *(f"{name}={value}" for name, value in env.items())]
        payload = b"".join(os.fsencode(str(text)) + b"\0" for text in texts)
        with self._condition:
            self._last += 1
            job = self._jobs[self._last] = Job(self, self._last, (out, err))
        self.send(b"S", job._number, payload)
        return job

    def send(self, kind, job=0, payload=b""):
        frame = HEAD.pack(ord(kind), job, len(payload)) + payload
        with self._sending:
            try:
                self._connection.sendall(frame, socket.MSG_NOSIGNAL)
            except OSError:
                raise self.lost("is gone")

    def wait(self, condition, limit):
        """Whether the condition, looked at under the lock, came true within `limit` seconds. Lost if it goes."""
        deadline = time.monotonic() + limit
        with self._condition:
            while not condition():
                if self._gone:
                    raise self.lost("went away")
                if not self._condition.wait(deadline - time.monotonic()):
                    return bool(condition())
        return True

    def wait_until_ready(self, limit):
        return self.wait(lambda: self._ready, limit)

    def join(self):
        """After the machine has ended: nothing comes any more."""
        self._reader.join()
        self._connection.close()

    def _receive(self, length):
        parts = bytearray()
        while len(parts) < length:
            part = self._connection.recv(length - len(parts))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    def _read(self):
        try:
            while True:
                kind, number, length = HEAD.unpack(self._receive(HEAD.size))
                self._take(bytes([kind]), number, self._receive(length))
        except (OSError, EOFError):
            pass
        with self._condition:
            self._gone = True
            self._condition.notify_all()

    def _take(self, kind, number, payload):
        with self._condition:
            sink = None
            if kind == b"R":
                self._ready = True
            else:
                sink = self._jobs[number]._take(kind, payload)
            self._condition.notify_all()
        if sink:
            sink(payload)
