"""Hostile peers of a destination that has TLS: they speak no TLS, stop half-way, show what is not theirs, cut connections.
Each is shown out in time, and neither the listener nor a migration in progress minds."""
import filecmp
import os
import socket
import ssl
import sys
import threading
from pathlib import Path

import credentials
import hostile_cases
from hostile_cases import DATA, decode, hello

sys.path.append(str(Path(__file__).resolve().parents[1] / "golden"))
import fake  # noqa: E402

MIB = 1 << 20
SAFE = "runs on at the source"
PROTOCOLS = ["godwit/1", "godwit/1 fixed-keys"]
UNEXPECTED_MESSAGE = 10  # RFC 8446, section 6
HURRY = ["--handshake-timeout", "700ms"]


def context(directory, show=None, protocols=PROTOCOLS):
    """A client that trusts the authority of a directory and shows that directory's certificate, or another's."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(directory / "ca-cert.pem")
    show = show or directory
    made.load_cert_chain(show / "client-cert.pem", show / "client-key.pem")
    if protocols:
        made.set_alpn_protocols(protocols)
    return made


def into_tls(with_context):
    """What fake.FakeSource connects with."""
    def connect(uri):
        return with_context.wrap_socket(hostile_cases.connect(uri), server_hostname="localhost")
    return connect


def client_hello(directory):
    out = ssl.MemoryBIO()
    session = context(directory).wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def what_comes(stream):
    """Until the listener closes; None if it has not after the 10 seconds of every socket here."""
    said = b""
    try:
        while chunk := stream.recv(4096):
            said += chunk
    except ConnectionError:
        pass
    except socket.timeout:
        return None
    finally:
        stream.close()
    return said


def beginnings(directory):
    """{name: bytes after which somebody falls silent}"""
    whole = client_hello(directory)
    return {"nothing": b"", "half a header": whole[:3], "a header": whole[:5], "half a ClientHello": whole[:len(whole) // 2],
            "a ClientHello": whole}


def strangers(uri, directory):
    """Those that do not end by themselves: open connections."""
    streams = []
    for data in [*beginnings(directory).values(), hello(), b"GET / HTTP/1.0\r\n\r\n" + bytes(200), os.urandom(4096)]:
        streams.append(hostile_cases.connect(uri))
        try:
            streams[-1].sendall(data)
        except OSError:
            pass  # it has closed already
    return streams


def start_slow(t, uri, directory, *words):
    sender = t.tool.start("send", uri, "--guest", "idle", "--ram", "24M", "--pattern", "random", "--max-bandwidth", "10M",
                          "--tls-creds", directory, *words)
    sender.wait_for(r"active")
    return sender


def served(t, uri, directory, name):
    sent = t.tool.run("send", uri, "--guest", "idle", "--ram", "4M", "--tls-creds", directory)
    t.expect(sent.code == 0 and not sent.errors, f"{name}: the next source is served", sent)


def end(t, receiver, name):
    receiver.signal()
    got = receiver.end()
    t.expect(got.code == 0 and not got.errors, f"{name}: the listener ends as it should", got)


def do_not_disturb_a_migration(t):
    directory = credentials.Made(t).x509()
    source, dump = t.scratch / "source", t.scratch / "dump"
    source.write_bytes(os.urandom(24 * MIB))
    receiver, uri = t.tool.recv("--once", "--dump", dump, "--tls-creds", directory)
    before = strangers(uri, directory)
    sender = t.tool.start("send", uri, "--guest", "idle", "--memory-from", source, "--max-bandwidth", "10M", "--tls-creds",
                          directory)
    sender.wait_for(r"active")
    during = strangers(uri, directory)
    sent, got = sender.end(), receiver.end()
    for stream in before + during:
        stream.close()
    t.expect(sent.code == 0 and not sent.errors, "the source succeeds", sent)
    t.expect(got.code == 0 and not got.errors, "the destination succeeds", got)
    t.expect(dump.exists() and filecmp.cmp(source, dump, shallow=False), "the memory is right")


def are_answered_by_an_alert_when_they_speak_no_tls(t):
    directory = credentials.Made(t).x509()
    for name, data in (("a hello", hello()), ("HTTP", b"GET / HTTP/1.0\r\n\r\n"), ("zeros", bytes(64))):
        receiver, uri = t.tool.recv("--discard", "--tls-creds", directory)
        stream = hostile_cases.connect(uri)
        stream.sendall(data)
        said = what_comes(stream)
        t.expect(said and said[0] == 21 and said[-2:] == bytes([2, UNEXPECTED_MESSAGE]), f"{name}: {said}")
        t.expect(receiver.wait_for(r"turned away .*does not speak TLS", 5), f"{name}: the destination warns")
        served(t, uri, directory, name)
        end(t, receiver, name)


def are_shown_out_when_they_stop_half_way(t):
    directory = credentials.Made(t).x509()
    for name, data in beginnings(directory).items():
        receiver, uri = t.tool.recv("--discard", "--tls-creds", directory, *HURRY)
        stream = hostile_cases.connect(uri)
        stream.sendall(data)
        served(t, uri, directory, name)
        t.expect(what_comes(stream) is not None, f"{name}: the connection is closed")
        t.expect(receiver.wait_for(r"turned away .*did not complete the TLS handshake within 700 ms", 5),
                 f"{name}: the destination warns")
        end(t, receiver, name)


def are_shown_out_when_they_say_nothing_inside(t):
    directory = credentials.Made(t).x509()
    receiver, uri = t.tool.recv("--discard", "--tls-creds", directory, *HURRY)
    for name, data in (("nothing", b""), ("half a hello", hello()[:48]), ("zeros", bytes(96)), ("noise", os.urandom(96))):
        stream = into_tls(context(directory))(uri)
        stream.sendall(data)
        served(t, uri, directory, name)
        t.expect(what_comes(stream) == b"", f"{name}: closed without a word, and with a closing notify")
    end(t, receiver, "all of them")


def are_refused_with_what_is_not_theirs(t):
    """Peers without godwit's own checks of what they show."""
    made = credentials.Made(t)
    ours, theirs = made.x509(), made.x509("theirs")
    cases = {"another authority's certificate": (context(ours, theirs), "is not signed by an authority of ca-cert.pem",
                                                 "unknown ca"),
             "no protocol": (context(ours, protocols=None), "something else than godwit inside", "no application protocol"),
             "another protocol": (context(ours, protocols=["h2"]), "something else than godwit inside",
                                  "no application protocol")}
    as_client = made.copy(ours, "as-client")
    for kind in ("cert", "key"):
        credentials.lay(as_client, f"client-{kind}.pem", ours / f"server-{kind}.pem")
    cases["a server's certificate"] = (context(ours, as_client), "was not made for a TLS client", "bad certificate")
    if credentials.certtool_is_here():
        dates = 'activation_date = "2020-01-01"\nexpiration_date = "2020-02-01"\ntls_www_client'
        expired = made.issue(made.copy(ours, "expired"), "client", dates)
        cases["an expired certificate"] = (context(ours, expired), "expired on 2020-02-01", "certificate expired")
    else:
        t.skip("an expired certificate", "certtool is not here")
    for name, (peer, warned, alert) in cases.items():
        receiver, uri = t.tool.recv("--discard", "--tls-creds", ours)
        try:
            said = f"{len(into_tls(peer)(uri).recv(96))} bytes"
        except (OSError, ssl.SSLError) as error:
            said = str(error)
        t.expect(alert in said.replace("_", " ").lower(), f"{name}: {said}")
        t.expect(receiver.wait_for(f"turned away .*{warned}", 5), f"{name}: the destination warns")
        served(t, uri, ours, name)
        end(t, receiver, name)


def refusal(connect, uri, *hello_words, **hello_fields):
    """(code, text) of the answer to a hello inside TLS."""
    stream = connect(uri)
    stream.sendall(hello(*hello_words, **hello_fields))
    return decode(what_comes(stream))


def cannot_use_a_captured_hello(t):
    """Tokens that were good once, in a TLS session of one's own with a valid certificate."""
    directory = credentials.Made(t).x509()
    connect = into_tls(context(directory))
    receiver, uri = t.tool.recv("--discard", "--tls-creds", directory)
    victim = fake.FakeSource(uri, connect)
    victim.negotiate()
    captured = dict(role=DATA, session=victim.session, token=victim.tokens[0]["token"])
    said = refusal(connect, uri, **captured)
    t.expect(said and "was used before" in said[1], f"while its session is there: {said}")
    said = refusal(connect, uri, **{**captured, "epoch": 1, "token": os.urandom(32)})
    t.expect(said and "wrong token" in said[1], f"the session's name and another token: {said}")
    said = refusal(connect, uri, **{**captured, "epoch": 1, "token": victim.tokens[-1]["token"]})
    t.expect(said and "wrong token" in said[1], f"the token of the control connection for a data channel: {said}")
    victim.lose()
    receiver.wait_for(r"godwit: (?!warning)", 15)
    said = refusal(connect, uri, **captured)
    t.expect(said and "no such migration" in said[1], f"when it is gone: {said}")
    sender = start_slow(t, uri, directory)
    for fields in (captured, {**captured, "session": os.urandom(16)}):
        said = refusal(connect, uri, **fields)
        t.expect(said and "no such migration" in said[1], f"while another session is there: {said}")
    said = refusal(connect, uri, session=os.urandom(16))
    t.expect(said and "another migration is in progress" in said[1], f"a session of one's own: {said}")
    sent = sender.end()
    t.expect(sent.code == 0 and not sent.errors, "the other session succeeds", sent)
    served(t, uri, directory, "afterwards")
    receiver.signal()
    receiver.end()


class Cable:
    """A TCP proxy to uri whose connections can be cut: both sides read the end of a stream, and nothing else before it."""

    def __init__(self, uri):
        self.target, self.pairs = uri, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"tcp:127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                here, _ = self.listener.accept()
            except OSError:
                return
            there = hostile_cases.connect(self.target)
            there.settimeout(None)
            self.pairs.append((here, there))
            for pair in ((here, there), (there, here)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    @staticmethod
    def _pass_on(source, target):
        try:
            while chunk := source.recv(1 << 16):
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self, number):
        for end_point in self.pairs[number]:
            try:
                end_point.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the first end was enough to make that side hang up

    def close(self):
        self.listener.close()
        for pair in self.pairs:
            for end_point in pair:
                end_point.close()


def cannot_pass_a_cut_off_as_an_end(t):
    directory = credentials.Made(t).x509()
    for name, number in (("the control connection", 0), ("the first data channel", 1), ("the last data channel", 4)):
        receiver, uri = t.tool.recv("--discard", "--tls-creds", directory)
        cable = Cable(uri)
        sender = start_slow(t, cable.uri, directory, "--channels", "4")
        cable.cut(number)
        sent = sender.end()
        cut = "cut without TLS's closing notify"
        t.expect(sent.code == 1 and len(sent.errors) == 1 and SAFE in sent.errors[0], f"{name}: the source fails", sent)
        t.expect(receiver.wait_for(r"godwit: (?!warning)[^\n]*\n", 15), f"{name}: so does the destination")
        errors = [line for line in receiver.err if line.startswith("godwit: ") and "warning" not in line]
        t.expect(len(errors) == 1 and (cut in errors[0] or cut in sent.errors[0]), f"{name}: it was {cut}", *errors, sent)
        served(t, uri, directory, name)
        receiver.signal()
        receiver.end()
        cable.close()


CASES = [do_not_disturb_a_migration, are_answered_by_an_alert_when_they_speak_no_tls, are_shown_out_when_they_stop_half_way,
         are_shown_out_when_they_say_nothing_inside, are_refused_with_what_is_not_theirs, cannot_use_a_captured_hello,
         cannot_pass_a_cut_off_as_an_end]
