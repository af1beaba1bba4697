#!/usr/bin/env python3
"""The built tool against peers in Python: it answers every bad golden file with the error the file names, and keeps the
promises of section 8 wherever the connection is lost.

    peers.py GODWIT
"""
import sys
import tempfile
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent / "runner"), str(HERE.parent / "cli")]
import decode  # noqa: E402
import tap  # noqa: E402
from decode import CODES, ERRORS  # noqa: E402
from fake import FakeDestination, FakeSource, connect, data_record, hello, receive_answer  # noqa: E402
from tool import Tool  # noqa: E402
from vectors import read_vector  # noqa: E402

OFFER = 3
QUICK = ["--heartbeat-interval", "10ms", "--handshake-timeout", "500ms", "--connect-timeout", "1s", "--peer-timeout", "3s"]


def bad_vectors(kinds, *senders):
    """Those that the code is expected to refuse, as sent by one of these (None: by either side)."""
    for path in sorted((HERE / "bad").glob("*.hex")):
        vector = read_vector(path)
        if vector.about["kind"] in kinds and vector.about.get("from") in senders and "deviation" not in vector.about:
            yield path.stem, vector


def error_after(control, data):
    """
    The name of the code in the ERROR that answers these bytes. What follows an OFFER waits for the ACCEPT. A heartbeat is
    waited for because it shows that no other thread of the tool is in the middle of sending: then ERROR would not be sent.
    """
    first = min(len(data), 16 + int.from_bytes(data[4:8], "big"))
    waits = int.from_bytes(data[:2], "big") == OFFER and first < len(data)
    try:
        control.wait("HEARTBEAT")
        control.stream.sendall(data[:first] if waits else data)
        got = control.wait("ACCEPT", "ERROR") if waits else None
        if waits and got["name"] == "ACCEPT":
            control.wait("HEARTBEAT")
            control.stream.sendall(data[first:])
    except OSError:
        pass  # it was refused half-way
    try:
        while (got := control.next())["name"] != "ERROR":
            pass
        return ERRORS[got["body"]["code"]]
    except (EOFError, OSError) as error:
        return f"no ERROR: {error!r}"


def error_of(control):
    return ERRORS[control.wait("ERROR")["body"]["code"]]


# ---- a destination ----

class Receiver:
    def __init__(self, tool, scratch, *words):
        self.path = str(scratch / "destination")
        self.running, _ = tool.recv("--discard", "--heartbeat-interval", "10ms", *words, uri=f"unix:{self.path}")

    def source(self):
        return FakeSource(self.path)


def a_destination_refuses_bad_hellos(t, tool, scratch):
    receiver = Receiver(tool, scratch)
    for name, vector in bad_vectors(["hello"], None):
        stream = connect(receiver.path)
        stream.sendall(vector.data)
        try:
            said = ERRORS[receive_answer(stream)["code"]]
        except (EOFError, OSError):
            said = "PROTOCOL"  # without a word, as section 3 asks for
        t.ok(said == vector.about["expect"], name, [said])
        stream.close()


def a_destination_refuses_bad_records(t, tool, scratch):
    receiver = Receiver(tool, scratch)
    for name, vector in bad_vectors(["record", "control"], None, decode.SOURCE):
        control = receiver.source().begin()
        said = error_after(control, vector.data)
        if "unsaid" in vector.about:
            t.ok(said.startswith("no ERROR"), f"{name} is refused, without a word", [said, "take its line unsaid out"])
        else:
            t.ok(said == vector.about["expect"], name, [said])
        control.close()


def a_destination_refuses_bad_data(t, tool, scratch):
    """Only those that are bad whatever the memory: the fake source has three pages."""
    receiver = Receiver(tool, scratch)
    for name, vector in bad_vectors(["data", "channel"], None):
        if vector.ram != [3]:
            continue
        source = receiver.source()
        source.negotiate()
        source.data.sendall(vector.data)
        said = error_of(source.control)
        t.ok(said == vector.about["expect"], name, [said])
        source.lose()


def a_destination_demands_a_complete_guest(t, tool, scratch):
    receiver = Receiver(tool, scratch)
    cases = {
        "a page was never announced": (dict(extents=((0, 2, 1, 1), (0, 1, 1, 0))), {}),
        "COMMIT of an epoch that has not come": ({}, dict(epoch=2)),
        "COMMIT of an earlier epoch": ({}, dict(epoch=0)),
        "COMMIT of a device state that has not come": ({}, dict(streams=1)),
    }
    for name, (memory, commit) in cases.items():
        source = receiver.source()
        source.negotiate()
        source.send_memory(**memory)
        source.commit(**commit)
        got = source.control.wait("ERROR", "LOADED")
        t.ok(got["name"] == "ERROR" and got["body"]["code"] == CODES["PROTOCOL"], name, [got])
        t.ok(source.ask() == "never", f"{name}: and never runs")
        source.lose()


def a_destination_keeps_its_word(t, tool, scratch):
    receiver = Receiver(tool, scratch)

    source = receiver.source()
    source.until_loaded()
    source.lose()
    t.ok([source.ask(), source.ask()] == ["never", "never"], "lost before RUN: never, and again never")

    source = receiver.source()
    source.until_loaded()
    t.ok(source.ask() == "never", "asked before RUN, connection whole: never")
    try:
        source.control.send("RUN")
        said = source.control.wait("RUNNING", "ERROR")["name"]
    except (EOFError, OSError):
        said = "closed"
    t.ok(said != "RUNNING" and source.ask() == "never", "RUN after the answer never is not obeyed", [said])
    source.lose()

    source = receiver.source()
    source.until_loaded()
    source.control.send("RUN")
    source.lose()
    said = [source.ask(), source.ask()]
    t.ok(said[0] in ("running", "never") and said[0] == said[1], "lost just after RUN: one answer, and it stays", [said])

    source = receiver.source()
    source.until_loaded()
    source.control.send("RUN")
    source.control.wait("RUNNING")
    source.lose()
    t.ok([source.ask(), source.ask()] == ["running", "running"], "lost after RUNNING: running, and again running")
    t.ok(source.ask(token=bytes(32)) == "NOT_ADMITTED", "a wrong token learns nothing")
    source.session = bytes(16)
    t.ok(source.ask() == "NOT_ADMITTED", "an unknown session is not told never")

    source = receiver.source()
    source.negotiate()
    stream = connect(receiver.path)
    stream.sendall(hello(source.session, role=1, token=source.tokens[0]["token"]))
    t.ok(receive_answer(stream)["code"] == CODES["NOT_ADMITTED"], "a token attaches one channel once")
    stream.close()
    source.lose()


def a_destination_goes_on_by_another_connection(t, tool, scratch):
    receiver = Receiver(tool, scratch, "--progress-timeout", "300ms")

    source = receiver.source()
    source.negotiate()
    source.data.sendall(data_record(1, 0, ((0, 2, 2, 1),)))
    later, said = source.knock(1)
    t.ok(said == "OK", "the next connection is admitted, by the token made of the first", [said])
    cases = {"its hello again": 1, "the hello of the first": 0, "one further ahead": 2, "one far ahead": 7}
    refused = {name: source.knock(epoch)[1] for name, epoch in cases.items()}
    t.ok(set(refused.values()) == {"NOT_ADMITTED"}, "nothing else is, while it waits for its turn", [refused])
    source.data.sendall(data_record(1, 1, bare="END"))
    t.ok(source.data.recv(1) == b"", "after END the old connection is closed")
    later.sendall(data_record(1, 2, ((0, 1, 1, 0),), b"\x5a" * decode.PAGE) + data_record(1, 3))
    acked = source.control.wait("EPOCH_ACK")["body"]
    t.ok(acked == {"epoch": 1, "arrived": 2 * 48 + 2 * 32 + decode.PAGE}, "the epoch is that of both connections", [acked])
    source.commit()
    got = source.control.wait("LOADED", "ERROR")
    t.ok(got["name"] == "LOADED", "and the guest is complete", [got])
    _, said = source.knock(2)
    t.ok(said == "NOT_ADMITTED", "after COMMIT no connection is let in", [said])
    later.close()
    source.lose()

    source = receiver.source()
    source.negotiate()
    source.data.sendall(data_record(1, 0, bare="END"))
    said = error_of(source.control)
    t.ok(said == "STALLED", "END that nothing follows", [said])
    source.lose()

    source = receiver.source()
    source.negotiate()
    later, _ = source.knock(1)
    source.data.close()
    said = error_of(source.control)
    t.ok(said == "PEER_CLOSED", "a connection that is lost is not replaced by the one that waits", [said])
    later.close()
    source.control.close()


# ---- a source ----

def start_source(tool, destination_path, *words):
    return tool.start("send", f"unix:{destination_path}", "--ram", "12K", "--guest", "idle", "--channels", "1", "--json",
                      *QUICK, *words)


def a_source_refuses_bad_records(t, tool, scratch):
    for index, (name, vector) in enumerate(bad_vectors(["record", "control"], None, decode.DESTINATION)):
        path = str(scratch / str(index))
        destination = FakeDestination(path)
        running = start_source(tool, path)
        destination.begin()
        said = error_after(destination.control, vector.data)
        destination.control.close()
        destination.close()
        answer = running.end()
        t.ok(said == vector.about["expect"] and answer.code == 1, name, [said, *answer.lines()])


def a_source_refuses_records_out_of_place(t, tool, scratch):
    cases = {"LOADED before COMMIT": ("LOADED", b""), "RUNNING before RUN": ("RUNNING", b""),
             "EPOCH_ACK of an epoch to come": ("EPOCH_ACK", bytes([0, 0, 0, 99]) + bytes(8))}
    for name, (record, body) in cases.items():
        path = str(scratch / name.split()[0])
        destination = FakeDestination(path)
        running = start_source(tool, path, "--max-bandwidth", "1K")
        destination.negotiate()
        destination.control.send(record, body)
        said = error_of(destination.control)
        destination.lose()
        destination.close()
        answer = running.end()
        t.ok(said == "PROTOCOL" and answer.code == 1, name, [said, *answer.lines()])


def a_source_believes_the_outcome(t, tool, scratch):
    cases = {
        "running": ([1], 0), "never": ([2], 1),
        "no answer, then running": ([None, 1], 0), "unknown, then never": ([0, 2], 1),
    }
    for name, (outcomes, code) in cases.items():
        path = str(scratch / name.replace(" ", ""))
        destination = FakeDestination(path)
        running = start_source(tool, path)
        destination.until_run()
        destination.lose()
        good = [destination.answer_question(outcome) for outcome in outcomes]
        destination.close()
        answer = running.end()
        t.ok(all(good), f"lost after RUN, {name}: it asks with the token, again if need be", [good])
        t.ok(answer.code == code, f"lost after RUN, {name}: exit {code}", answer.lines())


def a_source_holds_a_guest_it_may_not_run(t, tool, scratch):
    path = str(scratch / "gone")
    destination = FakeDestination(path)
    running = start_source(tool, path, "--peer-timeout", "500ms")
    destination.until_run()
    destination.lose()
    _, stream = destination.accept(code=CODES["NOT_ADMITTED"])
    stream.close()
    destination.close()
    held = running.wait_for(r"cont", 20) is not None
    running.write("quit\n")
    answer = running.end()
    t.ok(held and answer.code == 3, "refused by a destination that knows nothing: asks for cont or quit, exit 3",
         answer.lines())


CASES = [a_destination_refuses_bad_hellos, a_destination_refuses_bad_records, a_destination_refuses_bad_data,
         a_destination_demands_a_complete_guest, a_destination_keeps_its_word,
         a_destination_goes_on_by_another_connection, a_source_refuses_bad_records,
         a_source_refuses_records_out_of_place, a_source_believes_the_outcome, a_source_holds_a_guest_it_may_not_run]


class Named:
    def __init__(self, writer, case):
        self.writer, self.case = writer, case

    def ok(self, passed, name, details=()):
        return self.writer.ok(bool(passed), f"{self.case}: {name}", details)


def main(path, *words):
    writer = tap.Writer()
    for case in CASES:
        name = case.__name__.replace("_", " ")
        if words and not any(word in name for word in words):
            continue
        with tempfile.TemporaryDirectory(prefix="godwit-golden-") as scratch:
            tool = Tool(path)
            try:
                case(Named(writer, name), tool, Path(scratch))
            except Exception:
                writer.ok(False, f"{name}: the test itself", [traceback.format_exc()])
            finally:
                tool.clean_up()
    return writer.done()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
