"""Strangers at the destination's port: none of them disturbs a migration, and who can be answered is answered."""
import encodings.idna  # noqa: F401 what a connection would import later, perhaps as a user who may not read it
import filecmp
import os
import socket
import struct
import zlib

MIB = 1 << 20
MAGIC, ANSWER_MAGIC = b"GODWIT\r\n", b"GODWIT\n\r"
CONTROL, DATA = 0, 1


def hello(version=1, oldest=1, role=CONTROL, channel=0, session=bytes(16), epoch=0, token=bytes(32)):
    """docs/protocol.md, the hello."""
    body = struct.pack(">8sHHBxH16sI4x32s20x", MAGIC, version, oldest, role, channel, session, epoch, token)
    return body + struct.pack(">I", zlib.crc32(body))


def connect(uri):
    _, host, port = uri.split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def answer_to(uri, data, finish=False):
    """All that the listener says before it closes; None when it keeps the connection open without a word for 10 s."""
    with connect(uri) as stream:
        try:
            stream.sendall(data)
            if finish:
                stream.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has closed already
        said = b""
        try:
            while chunk := stream.recv(4096):
                said += chunk
        except ConnectionError:
            pass
        except socket.timeout:
            return said or None
        return said


def decode(said):
    """(code, text) of an answer; None for anything else."""
    if not said or len(said) < 32 or not said.startswith(ANSWER_MAGIC):
        return None
    version, code, size = struct.unpack(">HHH", said[8:14])
    good = zlib.crc32(said[32:32 + size], zlib.crc32(said[:28])) == struct.unpack(">I", said[28:32])[0]
    return (code, said[32:32 + size].decode()) if good and (version == 0) == (code != 0) else None


def strangers(uri):
    """Connections of every bad kind; those that stay silent are returned, open."""
    silent = [connect(uri) for _ in range(8)]
    for _ in range(50):
        connect(uri).close()
    for part in (0, 1, 7, 8, 40, 95):
        stream = connect(uri)
        stream.sendall(hello()[:part])
        (silent.append if part % 2 else socket.socket.close)(stream)
    for data in (b"GET / HTTP/1.0\r\n\r\n" + bytes(200), os.urandom(4096), b"\x16\x03\x01" + os.urandom(300),
                 hello()[:-1] + b"!", bytes(96), hello(role=DATA, token=os.urandom(32)),
                 hello(role=DATA, channel=65535), hello(role=9), hello(version=7, oldest=7)):
        stream = connect(uri)
        try:
            stream.sendall(data)
        except OSError:
            pass
        stream.close()
    for data in (os.urandom(5000), hello(role=DATA, token=os.urandom(32)) + os.urandom(5000)):
        stream = connect(uri)
        try:
            stream.sendall(data)
        except OSError:
            pass
        silent.append(stream)
    return silent


def do_not_disturb_a_migration(t):
    source, dump = t.scratch / "source", t.scratch / "dump"
    source.write_bytes(os.urandom(24 * MIB))
    receiver, uri = t.tool.recv("--once", "--dump", dump)
    before = strangers(uri)
    sender = t.tool.start("send", uri, "--guest", "idle", "--memory-from", source, "--max-bandwidth", "10M")
    sender.wait_for(r"active")
    during = strangers(uri)
    sent, got = sender.end(), receiver.end()
    for stream in before + during:
        stream.close()
    t.expect(sent.code == 0 and not sent.errors, "the source succeeds", sent)
    t.expect(got.code == 0 and not got.errors, "the destination succeeds", got)
    t.expect(dump.exists() and filecmp.cmp(source, dump, shallow=False), "the memory is right")


def do_not_end_a_service(t):
    receiver, uri = t.tool.recv("--discard", "--handshake-timeout", "500ms")
    for _ in range(3):
        for stream in strangers(uri):
            stream.close()
    sent = t.tool.run("send", uri, "--ram", "16M")
    t.expect(sent.code == 0 and not sent.errors, "a guest is served after them", sent)
    receiver.signal()
    got = receiver.end()
    t.expect(got.code == 0, "it ends as it should", got)


def are_answered_when_they_speak_another_version(t):
    receiver, uri = t.tool.recv("--discard")
    for version, oldest in ((9, 9), (0, 0), (65535, 2)):
        said = decode(answer_to(uri, hello(version=version, oldest=oldest)))
        t.expect(said and said[0] == 200 and "version" in said[1], f"versions {oldest} to {version}: {said}")
    said = decode(answer_to(uri, hello(role=DATA, token=os.urandom(32))))
    t.expect(said and said[0] != 0, f"a data channel of no session: {said}")
    receiver.signal()
    receiver.end()


def are_closed_when_they_are_silent(t):
    receiver, uri = t.tool.recv("--discard", "--handshake-timeout", "500ms")
    for name, data in (("nothing", b""), ("half a hello", hello()[:48]), ("zeros", bytes(96))):
        t.expect(answer_to(uri, data) == b"", f"{name}: closed without a word")
    t.expect(answer_to(uri, hello()[:48], finish=True) == b"", "half a hello and an end: closed without a word")
    receiver.signal()
    receiver.end()


def cannot_take_a_second_place(t):
    receiver, uri = t.tool.recv("--once", "--discard")
    sender = t.tool.start("send", uri, "--ram", "32M", "--max-bandwidth", "10M")
    sender.wait_for(r"active")
    second = t.tool.run("send", uri, "--ram", "16M", "--connect-timeout", "1s", limit=30)
    t.expect(second.code == 1 and len(second.errors) == 1 and "runs on at the source" in second.errors[0],
             "a second source is refused in one line", second)
    sent, got = sender.end(), receiver.end()
    t.expect(sent.code == 0 and got.code == 0, "the first one succeeds", sent, got)


CASES = [do_not_disturb_a_migration, do_not_end_a_service, are_answered_when_they_speak_another_version,
         are_closed_when_they_are_silent, cannot_take_a_second_place]
