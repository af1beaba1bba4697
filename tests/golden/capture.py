#!/usr/bin/env python3
"""Real migrations through a recording proxy: the independent decoder reads every byte of every connection, and what it
reads keeps the rules that only a whole session shows.

    capture.py GODWIT
"""
import os
import sys
import tempfile
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent / "runner"), str(HERE.parent / "cli")]
import decode  # noqa: E402
import tap  # noqa: E402
from decode import PAGE, Refused  # noqa: E402
from proxy import HELLO_SIZE, Proxy  # noqa: E402
from tool import Tool  # noqa: E402

MIB = 1 << 20


def cut(direction, start, split):
    """(where it ends in the stream, message) of all messages after the hello or the answer."""
    at = start
    for raw in split(direction.data[start:]):
        at += len(raw)
        yield at, raw


class Capture:
    """What a proxy recorded, decoded. Raises Refused where it does not follow the document."""

    def __init__(self, connections):
        control, *data = sorted(connections, key=lambda one: (one.from_source.data[12], one.from_source.data[14:16],
                                                                   one.from_source.data[32:36]))
        self.greet(control)
        self.source, self.destination = decode.FromSource(), decode.FromDestination()
        self.control = control
        self.from_source = [(at, self.source.take(raw))
                            for at, raw in cut(control.from_source, HELLO_SIZE, decode.split_records)]
        self.from_destination = [(at, self.destination.take(raw))
                                 for at, raw in cut(control.from_destination, 32, decode.split_records)]
        self.offer, self.accept = self.source.offer, self.destination.accept
        decode.check_offer(self.offer)
        decode.check_accept(self.accept, self.offer)
        self.ram = [block["size"] // PAGE for block in self.offer["blocks"]]
        self.data = data
        self.hellos, self.records = {}, []
        self.streams = [decode.DataStream(self.ram) for _ in range(self.offer["channels"])]
        for index, connection in enumerate(data):
            hello = self.greet(connection)
            decode.check_token(hello, self.hellos, self.accept)
            self.hellos[index] = hello
            stream = self.streams[hello["channel"]]
            if hello["epoch"] > 0:
                stream.next_connection()
            self.records.append([(at, stream.take(raw))
                                 for at, raw in cut(connection.from_source, HELLO_SIZE, decode.split_data)])

    @staticmethod
    def greet(connection):
        hello = decode.decode_hello(connection.from_source.data[:HELLO_SIZE])
        answer = connection.from_destination.data
        decode.check_answer(decode.decode_answer(answer[:decode.answer_size(answer[:32])]))
        return hello

    def names(self, records):
        return [record["name"] for _, record in records if record["name"] != "HEARTBEAT"]

    def pages(self, epoch):
        """(when its record came, (block, page), content or None for zeros) of everything announced in an epoch."""
        for connection, records in zip(self.data, self.records):
            for end, record in records:
                if record["name"] != "PAGES" or record["epoch"] != epoch:
                    continue
                when, at = connection.from_source.came_by(end), 0
                for extent in record["extents"]:
                    normal = decode.EXTENT_KINDS[extent["kind"]] == "normal"
                    for page in range(extent["first"], extent["first"] + extent["pages"]):
                        yield when, (extent["block"], page), record["content"][at:at + PAGE] if normal else None
                        at += PAGE if normal else 0

    @property
    def last_epoch(self):
        return self.source.commit["epoch"]

    def memory(self):
        """Block 0 as the epochs, applied in their order, make it."""
        memory = bytearray(self.ram[0] * PAGE)
        for epoch in range(1, self.last_epoch + 1):
            for _, (_, page), content in self.pages(epoch):
                memory[page * PAGE:(page + 1) * PAGE] = content or bytes(PAGE)
        return bytes(memory)

    def acknowledged_at(self, epoch):
        """When the source could know at the earliest that an epoch had arrived."""
        for end, record in self.from_destination:
            if record["name"] == "EPOCH_ACK" and record["body"]["epoch"] >= epoch:
                return self.control.from_destination.passed_by(end)
        return float("inf")


def migrate(t, tool, scratch, *words, **hold):
    """A migration through a proxy: (Capture or None, what was received)."""
    real, between, dump = scratch / "real", scratch / "between", scratch / "dump"
    receiver, _ = tool.recv("--once", "--dump", str(dump), uri=f"unix:{real}")
    proxy = Proxy(str(between), str(real), **hold)
    sent = tool.run("send", f"unix:{between}", *words)
    got = receiver.end()
    proxy.close()
    t.ok(sent.code == 0 and got.code == 0, "the migration succeeds", [*sent.lines(), *got.lines()])
    try:
        return Capture(proxy.connections), dump.read_bytes() if dump.exists() else b""
    except Refused as refused:
        t.ok(False, "the decoder reads every byte of every connection", [str(refused)])
        return None, b""


def check_session(t, capture, channels, replaced=False):
    t.ok(True, "the decoder reads every byte of every connection: lengths, checksums, sequences, epochs, order")
    first = [hello["channel"] for hello in capture.hellos.values() if hello["epoch"] == 0]
    t.ok(first == list(range(channels)), "each data channel has a first connection, and each hello shows its token", first)
    t.ok((len(capture.data) > channels) == replaced, "others take their place where that was asked for",
         [len(capture.data)])
    beats = [any(record["name"] == "HEARTBEAT" for _, record in records)
             for records in (capture.from_source, capture.from_destination)]
    t.ok(all(beats), "both sides send heartbeats", [beats])
    sent = capture.names(capture.from_source)
    t.ok(sent[0] == "OFFER" and sent[-3:] == ["COMMIT", "RUN", "BYE"] and set(sent[1:-3]) <= {"STATE"},
         "the source says OFFER, STATE ..., COMMIT, RUN, BYE", [sent])
    said = capture.names(capture.from_destination)
    t.ok(said[0] == "ACCEPT" and said[-2:] == ["LOADED", "RUNNING"] and set(said[1:-2]) <= {"EPOCH_ACK"},
         "the destination says ACCEPT, EPOCH_ACK ..., LOADED, RUNNING", [said])
    last = capture.last_epoch
    t.ok(capture.destination.acked == last and all(stream.marked == last for stream in capture.streams),
         "COMMIT names the epoch that every channel marked and that was acknowledged",
         [last, capture.destination.acked, [stream.marked for stream in capture.streams]])
    t.ok(capture.source.commit["streams"] == len(capture.source.states.streams) and capture.source.states.complete,
         "COMMIT counts the device states, all of which are complete")
    total = sum(len(connection.from_source.data) - HELLO_SIZE for connection in capture.data)
    t.ok(capture.destination.arrived == total, "the last EPOCH_ACK counts every byte of the data channels",
         [capture.destination.arrived, total])


def check_pages(t, capture, received):
    announced = sorted(page for _, page, _ in capture.pages(1))
    all_pages = [(block, page) for block, pages in enumerate(capture.ram) for page in range(pages)]
    t.ok(announced == all_pages, "every page is announced exactly once in epoch 1", [len(announced), len(all_pages)])
    twice = []
    for epoch in range(2, capture.last_epoch + 1):
        pages = [page for _, page, _ in capture.pages(epoch)]
        twice += [f"epoch {epoch}: {page}" for page in set(pages) if len(pages) != len(set(pages)) and pages.count(page) > 1]
    t.ok(not twice, "no epoch has a page twice", twice[:5])
    memory = capture.memory()
    differ = [page for page in range(capture.ram[0])
              if memory[page * PAGE:(page + 1) * PAGE] != received[page * PAGE:(page + 1) * PAGE]]
    t.ok(not differ and len(memory) == len(received), "the epochs, applied in order, are the memory received",
         [f"{len(differ)} pages differ, the first is {differ[0] if differ else None}"])


def check_flight(t, capture):
    """Pages of an epoch that are sent again before it was acknowledged: nobody knows which of the two is stored last."""
    again = []
    for epoch in range(1, capture.last_epoch):
        known = capture.acknowledged_at(epoch)
        pages = {page: "zero" if content is None else "normal" for _, page, content in capture.pages(epoch)}
        again += [f"page {page} went {pages[page]} in epoch {epoch} and again in {epoch + 1} before that was acknowledged"
                  for when, page, _ in capture.pages(epoch + 1) if when < known and page in pages]
    t.ok(not again, "no page is in two unacknowledged epochs", [f"{len(again)} are", *again[:5]])


def a_migration_follows_the_document(t, tool, scratch):
    words = ["--ram", "16M", "--channels", "3", "--dirty-rate", "40M", "--pattern", "mixed", "--max-bandwidth", "100M"]
    capture, received = migrate(t, tool, scratch, *words)
    if capture:
        check_session(t, capture, 3)
        check_pages(t, capture, received)
        check_flight(t, capture)


def connections_take_the_place_of_others(t, tool, scratch):
    words = ["--ram", "16M", "--channels", "3", "--dirty-rate", "40M", "--pattern", "mixed", "--max-bandwidth", "100M",
             "--x-channel-lifetime", "256K"]
    capture, received = migrate(t, tool, scratch, *words)
    if capture:
        check_session(t, capture, 3, replaced=True)
        check_pages(t, capture, received)
        check_flight(t, capture)


def one_channel_and_an_idle_guest(t, tool, scratch):
    capture, received = migrate(t, tool, scratch, "--ram", "4M", "--channels", "1", "--guest", "idle")
    if capture:
        check_session(t, capture, 1)
        check_pages(t, capture, received)


def holes_while_a_channel_lags(t, tool, scratch):
    """
    Either channel may carry the holes, so each lags once. The first of 8192 pages holds data, and the guest writes to others
    as soon as they have been announced as zeros. A bandwidth that is given spares the source the wait for its first
    acknowledgement, so that epoch 2 begins while epoch 1 is on its way.
    """
    image = scratch / "image"
    with open(image, "wb") as file:
        file.write(os.urandom(PAGE))
        file.truncate(32 * MIB)
    for channel in (0, 1):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            capture, received = migrate(t, tool, Path(folder), "--memory-from", str(image), "--channels", "2",
                                        "--dirty-rate", "20M", "--hot-set", "16M",
                                        "--avail-switchover-bandwidth", "100M",
                                        hold_channel=channel, hold_seconds=0.4)
            if capture:
                check_session(t, capture, 2)
                check_pages(t, capture, received)
                check_flight(t, capture)


CASES = [a_migration_follows_the_document, connections_take_the_place_of_others, one_channel_and_an_idle_guest, holes_while_a_channel_lags]


class Named:
    """Puts the case before the name of each test point."""

    def __init__(self, writer, case):
        self.writer, self.case = writer, case

    def ok(self, passed, name, details=()):
        return self.writer.ok(bool(passed), f"{self.case}: {name}", details)


def main(path):
    writer = tap.Writer()
    for case in CASES:
        name = case.__name__.replace("_", " ")
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
