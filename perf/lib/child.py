"""A process beside us, whose output is collected as it comes. The benchmarks and the tests of the tool build on it."""
import re
import subprocess
import threading
import time


class Child:
    """words are what is run; what else a process needs goes to subprocess.Popen. out and err: the lines so far."""

    def __init__(self, words, **how):
        self.words = [str(word) for word in words]
        self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)
        self.out, self.err = [], []
        self.threads = [threading.Thread(target=self._collect, args=pair, daemon=True)
                        for pair in [(self.process.stdout, self.out), (self.process.stderr, self.err)]]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def _collect(stream, lines):
        for line in stream:
            lines.append(line)

    def find(self, pattern, lines, limit):
        """The match of pattern in lines (out or err), once it is there; None when the process ends or limit seconds are
        over before."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            if ended:
                self.join()
            match = re.search(pattern, "".join(lines))
            if match or ended:
                return match
            time.sleep(0.002)
        return None

    def join(self):
        """The process has ended: all its output is read. A grandchild that holds a pipe open is not waited for."""
        for thread in self.threads:
            thread.join(5)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.join()
