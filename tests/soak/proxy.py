"""A proxy between a source and a destination that understands enough of the protocol to hurt it at the right place.

It follows every connection record by record (docs/protocol.md), says when each kind of record was first seen and passed
on, and lets a run hold, drop or damage records, cut single connections or all of them, or fall silent. Inside TLS
(sealed) it knows pieces, as they come, and counts their bytes; a Hurt says what is done to one of them.
"""
import ctypes
import os
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass

HELLO_SIZE, ANSWER_SIZE, RECORD_SIZE, PACKET_SIZE, EXTENT_SIZE = 96, 32, 16, 32, 16
NAMES = {1: "HEARTBEAT", 2: "ERROR", 3: "OFFER", 4: "ACCEPT", 5: "KEY", 6: "EPOCH_ACK", 7: "STATE", 8: "COMMIT",
         9: "LOADED", 10: "RUN", 11: "RUNNING", 12: "BYE", 13: "OUTCOME_ASK", 14: "OUTCOME",
         15: "REGISTER"}
CLONE_NEWNET = 0x40000000
HANDSHAKE = b"\x16"  # what every connection inside TLS begins with
HANDSHAKE_MOST = 4096  # bytes of one direction after which a handshake is over
PAGES_LEAST = 4096  # bytes; a piece of a data channel that is so long carries pages
RESET = struct.pack("ii", 1, 0)  # struct linger: close() sends RST


def enter_namespace(name):
    """The calling thread's sockets are made in this network namespace from now on."""
    if not name:
        return
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


class Parser:
    """One direction of one connection: cuts the stream into (bytes, kind, name); the pieces together are the stream.
    kind: hello, answer, record, head (of a data record), payload, and raw once it cannot be followed any more."""

    def __init__(self, connection, from_source):
        self.connection, self.from_source = connection, from_source
        self.buffer, self.payload, self.greeted, self.lost = b"", 0, False, False

    def feed(self, data):
        self.buffer += data
        while self.buffer:
            if self.lost:
                piece = (self.buffer, "raw", None)
            elif self.payload:
                piece = (self.buffer[:self.payload], "payload", None)
                self.payload -= len(piece[0])
            else:
                piece = self._head()
                if piece is None:
                    return
            self.buffer = self.buffer[len(piece[0]):]
            yield piece

    def _head(self):
        have = self.buffer
        if not self.greeted:
            size = HELLO_SIZE if self.from_source else ANSWER_SIZE
            if len(have) < size:
                return None
            if not self.from_source:
                size += struct.unpack(">H", have[12:14])[0]
            else:
                self.connection.control, self.connection.channel = have[12] == 0, struct.unpack(">H", have[14:16])[0]
                self.connection.epoch = struct.unpack(">I", have[32:36])[0]
            if len(have) < size:
                return None
            self.greeted = True
            return have[:size], "hello" if self.from_source else "answer", None
        if self.connection.control:
            return self._record(have)
        if not self.from_source:
            self.lost = True
            return have, "raw", None
        return self._packet(have)

    def _record(self, have):
        if len(have) < RECORD_SIZE:
            return None
        kind, _, size = struct.unpack(">HHI", have[:8])
        if size > 1 << 20:
            self.lost = True
            return have, "raw", None
        if len(have) < RECORD_SIZE + size:
            return None
        return have[:RECORD_SIZE + size], "record", NAMES.get(kind, str(kind))

    def _packet(self, have):
        if len(have) < PACKET_SIZE:
            return None
        extents, _, payload = struct.unpack(">HHI", have[12:20])
        size = PACKET_SIZE + extents * EXTENT_SIZE
        if len(have) < size:
            return None
        self.payload = payload
        return have[:size], "head", None


class Sealed:
    """One direction of a connection inside TLS: its pieces as they come. kind: hello (the first of the source), data
    (the source's, once pages may be among it), sealed."""

    def __init__(self, connection, from_source):
        self.connection, self.from_source, self.bytes = connection, from_source, 0

    def feed(self, data):
        kind = "sealed"
        if self.from_source and not self.bytes:
            kind = "hello"
            if data[:1] != HANDSHAKE:
                self.connection.proxy.unsealed = True
        elif self.from_source and not self.connection.control and self.bytes >= HANDSHAKE_MOST:
            kind = "data"
        self.bytes += len(data)
        yield data, kind, None


@dataclass
class Hurt:
    """Done to one piece: flip a bit, lose bytes, repeat the piece; or pass its beginning on and then reset the
    connection, end it in order (inside TLS: without its goodbye), or be silent."""
    how: str
    from_source: bool
    control: bool = None  # of the control connection, or of a data channel
    number: int = None  # instead: of the n-th connection,
    at: int = None  # the piece with this byte

    def fits(self, connection, from_source, begin, size):
        if from_source != self.from_source:
            return False
        if self.number is None:
            return connection.control == self.control
        return connection.number == self.number and begin <= self.at < begin + size


class Connection:
    def __init__(self, proxy, source, number):
        self.proxy, self.source, self.target, self.number = proxy, source, None, number
        self.control = number == 0 if proxy.sealed else None
        self.channel = None
        self.epoch = 0
        self.bytes = {True: 0, False: 0}  # from the source, from the destination, inside TLS
        self.ending = None  # called when the piece in hand has been passed on
        self.silent = False  # whatever comes is lost from now on
        self.cut = False

    def run(self):
        proxy = self.proxy
        try:
            enter_namespace(proxy.namespace)
            if proxy.silent:
                self.silent = True
                return
            self.target = proxy.connect()
            self.target.settimeout(None)
            for end in (self.source, self.target):
                if end.family != socket.AF_UNIX:
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.reset()
            return
        for ends in ((self.source, self.target, True), (self.target, self.source, False)):
            threading.Thread(target=self.pump, args=ends, daemon=True).start()

    def pump(self, come, go, from_source):
        parser = (Sealed if self.proxy.sealed else Parser)(self, from_source)
        try:
            while chunk := come.recv(1 << 17):
                for data, kind, name in parser.feed(chunk):
                    self.pass_on(go, data, kind, name, from_source)
        except OSError:
            pass
        if self.silent or self.proxy.silent:
            return
        try:
            go.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def pass_on(self, go, data, kind, name, from_source):
        proxy = self.proxy
        while proxy.stalled and not proxy.closed:
            time.sleep(0.002)
        event = name if kind == "record" else ("data" if kind == "head" else kind)
        if self.control and self.epoch and kind == "record":
            event = "again-" + event
        proxy.saw(event)
        data = (proxy.treat_sealed(self, data, from_source) if proxy.sealed else
                proxy.treat(self, data, kind, name, from_source))
        while proxy.stalled and not proxy.closed:
            time.sleep(0.002)
        if data is None or self.silent or proxy.silent:
            return
        proxy.passes(event)
        size = proxy.chunk_control if self.control else proxy.chunk_data
        for at in range(0, len(data), size or len(data) or 1):
            if size and proxy.jitter_ms:
                time.sleep(proxy.random.random() * proxy.jitter_ms / 1000)
            go.sendall(data[at:at + (size or len(data))])
        if self.ending and self.ending[1] == from_source:
            self.ending[0]()

    def fall_silent(self):
        self.silent = True

    def end(self):
        self.cut = True
        for end in (self.source, self.target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def reset(self):
        self.cut = True
        for end in (self.source, self.target):
            if end is None:
                continue
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.shutdown(socket.SHUT_RD)  # wakes the pump; close alone leaves a blocked recv
            except OSError:
                pass
            try:
                end.close()
            except OSError:
                pass


class Proxy:
    """connect(), listen(): a socket to the destination, and the one the source connects to. hold: {record name: seconds
    before it is passed on}; of a sealed proxy {"control": seconds
    before each piece of the control connection is, once the source's guest has been stopped}."""

    def __init__(self, connect, listen, seed, hold=None, namespace=None, sealed=False):
        self.sealed, self.hurt = sealed, None  # Hurt: what is done to the next piece that it fits
        self.unsealed = False  # a connection that was not inside TLS has been seen
        self.spoiled = False  # pages were taken or changed: the migration cannot complete
        self.connect, self.namespace, self.random = connect, namespace, random.Random(seed)
        self.hold = dict(hold or {})
        self.silent = self.stalled = self.closed = False
        self.jitter_ms = self.chunk_control = self.chunk_data = 0
        self.damage = None  # kind of the next piece to damage: hello, answer, record, head
        self.drop = None  # (record name, "one" | "rest")
        self.done = []  # what drop and damage hit
        self.seen, self.passed, self.connections = {}, {}, []
        self.changed = threading.Condition()
        ready = threading.Event()
        self.error = None
        threading.Thread(target=self._accept, args=(listen, ready), daemon=True).start()
        ready.wait()
        if self.error:
            raise self.error
        self.address = self.listener.getsockname()

    def _accept(self, listen, ready):
        try:
            enter_namespace(self.namespace)
            self.listener = listen()
        except OSError as error:
            self.error = error
        ready.set()
        while not self.error:
            try:
                source, _ = self.listener.accept()
            except OSError:
                return
            if self.closed:
                source.close()
                return
            connection = Connection(self, source, len(self.connections))
            self.connections.append(connection)
            threading.Thread(target=connection.run, daemon=True).start()

    def saw(self, event):
        with self.changed:
            self.seen.setdefault(event, time.monotonic_ns())
            self.changed.notify_all()

    def passes(self, event):
        """Called before the bytes leave: what they cause is later than this."""
        with self.changed:
            self.passed.setdefault(event, time.monotonic_ns())
            self.changed.notify_all()

    def wait_for(self, event, timeout, over):
        """True when the event was seen; False when over() says that the run has ended, or nothing came in time."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while event not in self.seen:
                if over() or time.monotonic() > deadline:
                    return False
                self.changed.wait(0.05)
        return True

    def treat(self, connection, data, kind, name, from_source):
        """The bytes to pass on, None for none."""
        if kind == "record" and not connection.epoch:
            if name in self.hold:
                time.sleep(self.hold[name])
            if self.drop and self.drop[0] == name:
                self.done.append(f"dropped {name}")
                connection.silent = self.drop[1] == "rest"
                self.drop = None
                return None
        if self.damage == (kind, from_source):
            self.damage = None
            bit = self.random.randrange(len(data) * 8)
            data = bytearray(data)
            data[bit // 8] ^= 1 << bit % 8
            self.done.append(f"damaged {name or kind} at byte {bit // 8}")
            data = bytes(data)
        return data

    def treat_sealed(self, connection, data, from_source):
        """As treat(), inside TLS."""
        if connection.control and "stopped" in self.passed:
            time.sleep(self.hold.get("control", 0))
        with self.changed:
            begin = connection.bytes[from_source]
            connection.bytes[from_source] += len(data)
            hurt = self.hurt
            if not hurt or not hurt.fits(connection, from_source, begin, len(data)):
                return data
            self.hurt = None
        at = hurt.at - begin if hurt.at is not None else self.random.randrange(len(data))
        self.done.append(f"{hurt.how} at byte {begin + at} of connection {connection.number}, from the "
                         f"{'source' if from_source else 'destination'}, in a piece of {len(data)}")
        # what comes at the end of the last piece may be the channel's goodbye, or END
        self.spoiled = (hurt.how in ("flip", "lose", "end", "reset") and not connection.control and from_source and
                        len(data) >= PAGES_LEAST and at < len(data) // 2)
        return self._hurt(hurt.how, connection, data, at, from_source)

    def _hurt(self, how, connection, data, at, from_source):
        if how == "flip":
            return data[:at] + bytes([data[at] ^ 1 << self.random.randrange(8)]) + data[at + 1:]
        if how == "lose":
            return data[:at] + data[at + self.random.randint(1, len(data) - at):]
        if how == "repeat":
            return data + data
        connection.ending = ({"reset": connection.reset, "end": connection.end,
                              "silent": connection.fall_silent}[how], from_source)
        return data[:at]

    def reset_all(self):
        for connection in list(self.connections):
            connection.reset()

    def silence_all(self):
        for connection in list(self.connections):
            connection.silent = True

    def one_channel(self):
        """A connection that carries pages, None if there is none."""
        channels = [c for c in self.connections if c.control is False and not c.cut]
        return self.random.choice(channels) if channels else None

    def close(self):
        self.closed = True
        self.stalled = False
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.reset_all()
