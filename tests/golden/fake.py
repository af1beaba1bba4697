"""The two sides of a session in Python, as far as the tests play them against the built tool: each step is a call."""
import os
import socket
import struct
import threading
import time
import zlib

import decode
from decode import DESTINATION, SOURCE

LIMIT = 15  # seconds for anything the tool has to answer
NUMBERS = {name: number for number, (name, _) in decode.RECORDS.items()}


def crc(data):
    return struct.pack(">I", zlib.crc32(data))


def hello(session, role=0, channel=0, epoch=0, token=bytes(32)):
    body = struct.pack(">8sHHBxH16sI4x32s20x", decode.HELLO_MAGIC, 1, 1, role, channel, session, epoch, token)
    return body + crc(body)


def answer(code=0, text=b""):
    head = struct.pack(">8sHHH14x", decode.ANSWER_MAGIC, 0 if code else 1, code, len(text))
    return head + crc(head + text) + text


def record(name, sequence, body=b""):
    head = struct.pack(">HxxII", NUMBERS[name], len(body), sequence)
    return head + crc(head + body) + body


def data_record(epoch, sequence, extents=(), content=b"", bare="MARKER"):
    """extents: (block, kind, pages, first); without any it is what `bare` names."""
    number = next(number for number, name in decode.DATA_RECORDS.items() if name == ("PAGES" if extents else bare))
    head = struct.pack(">HHIIHxxI8x", number, 0, epoch, sequence, len(extents), len(content))
    tail = b"".join(struct.pack(">HBxIQ", *extent) for extent in extents)
    return head + crc(head + tail) + tail + content


def receive(stream, size):
    data = b""
    while len(data) < size:
        chunk = stream.recv(size - len(data))
        if not chunk:
            raise EOFError(f"closed after {len(data)} of {size} bytes")
        data += chunk
    return data


def receive_answer(stream):
    head = receive(stream, 32)
    return decode.decode_answer(head + receive(stream, decode.answer_size(head) - 32))


class Control:
    """A control connection after its answer; `peer` is who sends what we read."""

    def __init__(self, stream, peer):
        self.stream, self.peer, self.sent, self.read = stream, peer, 0, 0
        self.lock = threading.Lock()

    def send(self, name, body=b""):
        with self.lock:
            self.stream.sendall(record(name, self.sent, body))
            self.sent += 1

    def next(self):
        head = receive(self.stream, 16)
        raw = head + receive(self.stream, decode.record_size(head) - 16)
        self.read += 1
        return decode.decode_record(raw, self.read - 1, self.peer)

    def wait(self, *names):
        """The next record of these names; others are passed over, but an ERROR that was not asked for is a failure."""
        while True:
            got = self.next()
            if got["name"] in names:
                return got
            if got["name"] == "ERROR":
                raise AssertionError(f"ERROR {got['body']['code']}: {got['body']['text']}")

    def close(self):
        self.stream.close()


def connect(path):
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(LIMIT)
    stream.connect(path)
    return stream


class FakeSource:
    """A source of one block of three pages: the first holds content, the others are zeros. connect makes its connections
    to path, which is what that takes."""

    def __init__(self, path, connect=connect):
        self.path, self.connect, self.session = path, connect, os.urandom(16)

    def begin(self):
        """A control connection, once the destination expects a migration."""
        deadline = time.monotonic() + LIMIT
        while True:
            stream = self.connect(self.path)
            stream.sendall(hello(self.session))
            said = receive_answer(stream)
            if said["code"] == 0:
                self.control = Control(stream, DESTINATION)
                return self.control
            stream.close()
            if said["code"] != decode.CODES["BUSY"] or time.monotonic() > deadline:
                raise AssertionError(said)
            time.sleep(0.02)

    def negotiate(self):
        self.begin()
        block = b"\x03ram" + struct.pack(">QI", 3 * decode.PAGE, decode.PAGE)
        self.control.send("OFFER", struct.pack(">QHHIQI", 0, 1, 1, decode.PAGE, decode.PAGE, 0) + b"\x04none" + block)
        self.tokens = self.control.wait("ACCEPT")["body"]["tokens"]
        self.data = self.connect(self.path)
        self.data.sendall(hello(self.session, role=1, token=self.tokens[0]["token"]))
        decode.check_answer(receive_answer(self.data))

    def next_hello(self, channel=0, epoch=1):
        token = self.tokens[channel]["token"]
        for one in range(1, epoch + 1):
            token = decode.next_token(token, self.session, 1, channel, one)
        return hello(self.session, role=1, channel=channel, epoch=epoch, token=token)

    def knock(self, epoch):
        """The next connection of channel 0, or None, and the code of the answer."""
        stream = connect(self.path)
        stream.sendall(self.next_hello(epoch=epoch))
        code = receive_answer(stream)["code"]
        if code:
            stream.close()
        return (None if code else stream), decode.ERRORS[code]

    def send_memory(self, extents=((0, 2, 2, 1), (0, 1, 1, 0))):
        content = b"\x5a" * decode.PAGE * sum(pages for _, kind, pages, _ in extents if kind == 1)
        self.data.sendall(data_record(1, 0, extents, content) + data_record(1, 1))
        return self.control.wait("EPOCH_ACK")["body"]

    def commit(self, epoch=1, streams=0):
        self.control.send("COMMIT", struct.pack(">II", epoch, streams))

    def until_loaded(self):
        self.negotiate()
        self.send_memory()
        self.commit()
        self.control.wait("LOADED")

    def ask(self, token=None):
        """The outcome by its number, or the code of a refusal as text."""
        stream = self.connect(self.path)
        stream.sendall(hello(self.session, epoch=1, token=token or self.tokens[-1]["token"]))
        said = receive_answer(stream)
        if said["code"]:
            stream.close()
            return decode.ERRORS[said["code"]]
        control = Control(stream, DESTINATION)
        control.send("OUTCOME_ASK")
        outcome = control.wait("OUTCOME")["body"]["outcome"]
        control.close()
        return decode.OUTCOMES[outcome]

    def lose(self):
        """Both connections break."""
        self.control.close()
        self.data.close()


class FakeDestination:
    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(LIMIT)
        self.listener.bind(path)
        self.listener.listen(16)
        self.tokens = [os.urandom(32), os.urandom(32)]

    def accept(self, code=0):
        """(hello, connection) of the next that comes, answered."""
        stream, _ = self.listener.accept()
        stream.settimeout(LIMIT)
        said = decode.decode_hello(receive(stream, 96))
        stream.sendall(answer(code, b"refused by the test" if code else b""))
        return said, stream

    def begin(self):
        self.hello, stream = self.accept()
        self.control = Control(stream, SOURCE)
        self.offer = self.control.wait("OFFER")["body"]

    def negotiate(self):
        self.begin()
        tokens = struct.pack(">BxHI", 1, 0, 0) + self.tokens[0] + struct.pack(">BxHI", 0, 0, 1) + self.tokens[1]
        self.control.send("ACCEPT", struct.pack(">QHHHxx", 0, 1, 1, 2) + b"\1" + tokens)
        shown, self.data = self.accept()
        assert shown["token"] == self.tokens[0] and shown["role"] == 1
        threading.Thread(target=self._take_data, daemon=True).start()

    def _take_data(self):
        """Acknowledges every epoch of the one channel."""
        stream = decode.DataStream([block["size"] // decode.PAGE for block in self.offer["blocks"]])
        arrived = 0
        try:
            while True:
                head = receive(self.data, 32)
                raw = head + receive(self.data, sum(decode.data_sizes(head)))
                arrived += len(raw)
                got = stream.take(raw)
                if got["name"] == "MARKER":
                    self.control.send("EPOCH_ACK", struct.pack(">IQ", got["epoch"], arrived))
        except (EOFError, OSError):
            pass

    def until_run(self):
        self.negotiate()
        self.control.wait("COMMIT")
        self.control.send("LOADED")
        self.control.wait("RUN")

    def answer_question(self, outcome):
        """Waits for the question; outcome is a number, or None to hang up instead of an answer. Was it a good question?"""
        said, stream = self.accept()
        control = Control(stream, SOURCE)
        control.wait("OUTCOME_ASK")
        if outcome is not None:
            control.send("OUTCOME", bytes([outcome]))
        control.close()
        return said["session"] == self.hello["session"] and said["token"] == self.tokens[1] and said["epoch"] == 1

    def lose(self):
        self.control.close()
        self.data.close()

    def close(self):
        self.listener.close()
