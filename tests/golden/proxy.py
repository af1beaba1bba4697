"""A recording proxy between a source and a destination over Unix sockets: every byte of every connection, both ways."""
import queue
import socket
import threading
import time

HELLO_SIZE = 96


class Direction:
    """One way of one connection. A reader records what comes and when; a writer passes it on, late if it is held."""

    def __init__(self, from_socket, to_socket, hold_after=None, hold_seconds=0):
        self.chunks = []  # (when it came, bytes)
        self.passed = []  # (when it was passed on, bytes passed by then)
        self.hold_after, self.hold_seconds = hold_after, hold_seconds
        self._from, self._to, self._queue = from_socket, to_socket, queue.Queue()
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._write)]

    @property
    def data(self):
        return b"".join(chunk for _, chunk in self.chunks)

    def came_by(self, offset):
        """When the byte before this offset came."""
        seen = 0
        for when, chunk in self.chunks:
            seen += len(chunk)
            if seen >= offset:
                return when
        return float("inf")

    def passed_by(self, offset):
        return next((when for when, total in self.passed if total >= offset), float("inf"))

    def _read(self):
        while True:
            try:
                chunk = self._from.recv(1 << 16)
            except OSError:
                chunk = b""
            if chunk:
                self.chunks.append((time.monotonic(), chunk))
            self._queue.put(chunk)
            if not chunk:
                return

    def _write(self):
        total = 0
        while chunk := self._queue.get():
            if self.hold_after is not None and total >= self.hold_after:
                time.sleep(self.hold_seconds)
                self.hold_after = None
            total += len(chunk)
            self.passed.append((time.monotonic(), total))  # before it can be answered
            try:
                self._to.sendall(chunk)
            except OSError:
                return
        try:
            self._to.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Connection:
    def __init__(self, source, target, **hold):
        self.sockets = (source, target)
        self.from_source = Direction(source, target, **hold)
        self.from_destination = Direction(target, source)
        for thread in self.from_source.threads + self.from_destination.threads:
            thread.start()


class Proxy:
    """hold_channel, hold_seconds: what the source says on this data channel after its hello waits so long, once."""

    def __init__(self, path, target, hold_channel=None, hold_seconds=0):
        self.connections, self.target = [], target
        self.hold_channel, self.hold_seconds = hold_channel, hold_seconds
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                source, _ = self.listener.accept()
            except OSError:
                return
            target = socket.socket(socket.AF_UNIX)
            target.connect(self.target)
            hello = source.recv(HELLO_SIZE, socket.MSG_PEEK | socket.MSG_WAITALL)
            held = len(hello) == HELLO_SIZE and hello[12] == 1 and hello[15] == self.hold_channel
            hold = {"hold_after": HELLO_SIZE, "hold_seconds": self.hold_seconds} if held else {}
            self.connections.append(Connection(source, target, **hold))

    def close(self):
        """Waits until both sides have closed what they opened."""
        self.listener.close()
        for connection in self.connections:
            for thread in connection.from_source.threads + connection.from_destination.threads:
                thread.join(10)
            for end in connection.sockets:
                end.close()
