#!/usr/bin/env python3
"""An independent decoder of godwit's wire protocol, version 1, written from docs/protocol.md and from nothing else.

    decode.py FILE.hex ...     prints what the golden vectors say

Every structure is a table of (offset, size, field), the same that the document prints; golden.py compares the two.
A decoder returns a dict or raises Refused with the code that section 10 of the document asks for.
"""
import hmac
import struct
import sys
import zlib

sys.dont_write_bytecode = True
from vectors import read_vector  # noqa: E402

VERSION, OLDEST = 1, 1
PAGE = 4096
HELLO_MAGIC, ANSWER_MAGIC = b"GODWIT\r\n", b"GODWIT\n\r"
ROLES = {0: "control", 1: "data", 2: "urgent", 3: "stream"}
ANSWER_TEXT_MAX = 400
BODY_MAX = 1 << 20
OPTIONAL = 0x8000
ERROR_TEXT_MAX = 511
CHANNELS_MAX, BLOCKS_MAX, NAME_MAX = 255, 1024, 63
BLOCK_SIZE_MAX = 1 << 52
KEY_MAX = 64
SLICE_SIZES = {2 << 20, 4 << 20, 8 << 20, 16 << 20}
REGISTER_RUNS_MAX = 1024
STREAMS_MAX, STREAM_MAX, STREAMS_TOTAL_MAX = 256, 256 << 20, 512 << 20
EXTENTS_MAX, NORMAL_MAX, PAYLOAD_MAX = 512, 512, 512 * PAGE
FEATURE_PLACED = 1
FEATURES = {0: "PLACED", 1: "RDMA"}
RDMA_MAGIC, RDMA_VERSION = b"GWRD", 1
REFUSAL_TEXT_MAX = 140
FRAME_DATA_MAX, FRAME_END = 65528, 1 << 31

SOURCE, DESTINATION = "source", "destination"
RECORDS = {  # number: (name, who sends it)
    1: ("HEARTBEAT", "both"), 2: ("ERROR", "both"), 3: ("OFFER", SOURCE), 4: ("ACCEPT", DESTINATION),
    5: ("KEY", DESTINATION), 6: ("EPOCH_ACK", DESTINATION), 7: ("STATE", SOURCE), 8: ("COMMIT", SOURCE),
    9: ("LOADED", DESTINATION), 10: ("RUN", SOURCE), 11: ("RUNNING", DESTINATION), 12: ("BYE", SOURCE),
    13: ("OUTCOME_ASK", SOURCE), 14: ("OUTCOME", DESTINATION), 15: ("REGISTER", SOURCE),
}
DATA_RECORDS = {1: "PAGES", 2: "MARKER", 3: "END"}
FLAG_PLACED = 1
EXTENT_KINDS = {1: "normal", 2: "zero"}
OUTCOMES = {0: "unknown", 1: "running", 2: "never"}
STATE_LAST = 1
ERRORS = {
    0: "OK", 1: "INVALID", 2: "UNSUPPORTED", 3: "TOO_BIG", 4: "TIMEOUT", 5: "CANCELLED", 6: "NO_MEMORY", 7: "BUSY",
    8: "SYSTEM", 100: "CLOSED", 101: "PEER_CLOSED", 102: "RESET", 103: "REFUSED", 104: "UNREACHABLE", 105: "STALLED",
    106: "PROTOCOL", 107: "NOT_ADMITTED", 200: "MISMATCH", 201: "PEER_FAILED", 202: "PEER_DEAD", 203: "GUEST",
    204: "SWITCHOVER_TIMEOUT", 205: "OUTCOME_UNKNOWN", 206: "NOT_RESUMED",
}
CODES = {name: code for code, name in ERRORS.items()}


def next_token(token, session, role, channel, epoch):
    """That of the connection `epoch`, from the token of the connection before (section 3.6)."""
    text = b"godwit next token\0" + session + struct.pack(">BxHI", role, channel, epoch)
    return hmac.new(token, text, "sha256").digest()


class Refused(Exception):
    def __init__(self, name, text):
        super().__init__(f"{name}: {text}")
        self.name, self.text = name, text


def refuse(text, name="PROTOCOL"):
    raise Refused(name, text)


# ---- structures: the tables of the document; n is the size of a text that lies in the middle ----

LAYOUTS = {
    "hello": [(0, 8, "magic"), (8, 2, "version"), (10, 2, "oldest"), (12, 1, "role"), (13, 1, "reserved"),
              (14, 2, "channel"), (16, 16, "session"), (32, 4, "epoch"), (36, 4, "reserved"), (40, 32, "token"),
              (72, 20, "reserved"), (92, 4, "crc")],
    "ticket": [(0, 16, "session"), (16, 32, "proof")],
    "answer": [(0, 8, "magic"), (8, 2, "version"), (10, 2, "code"), (12, 2, "text size"), (14, 14, "reserved"),
               (28, 4, "crc"), (32, "n", "text")],
    "record": [(0, 2, "type"), (2, 2, "reserved"), (4, 4, "size"), (8, 4, "sequence"), (12, 4, "crc")],
    "HEARTBEAT": [(0, 8, "time"), (8, 8, "progress")],
    "ERROR": [(0, 2, "code"), (2, 2, "text size"), (4, "n", "text")],
    "OFFER": [(0, 8, "features"), (8, 2, "channels"), (10, 2, "blocks"), (12, 4, "page size"), (16, 8, "populated"),
              (24, 4, "slice size"), (28, 1, "compression size"), (29, "n", "compression")],
    "OFFER block": [(0, 1, "id size"), (1, "n", "id"), ("1+n", 8, "size"), ("9+n", 4, "page size")],
    "ACCEPT": [(0, 8, "features"), (8, 2, "channels"), (10, 2, "blocks"), (12, 2, "tokens"), (14, 2, "reserved"),
               (16, "n", "fresh")],
    "ACCEPT token": [(0, 1, "role"), (1, 1, "reserved"), (2, 2, "channel"), (4, 4, "epoch"), (8, 32, "token")],
    "REGISTER run": [(0, 2, "block"), (2, 2, "reserved"), (4, 4, "first"), (8, 4, "slices")],
    "KEY": [(0, 2, "block"), (2, 2, "key size"), (4, 4, "slice"), (8, "n", "key")],
    "EPOCH_ACK": [(0, 4, "epoch"), (4, 8, "arrived")],
    "STATE": [(0, 1, "name size"), (1, "n", "name"), ("1+n", 1, "flags"), ("2+n", 8, "offset"), ("10+n", "rest", "data")],
    "COMMIT": [(0, 4, "epoch"), (4, 4, "streams")],
    "OUTCOME": [(0, 1, "outcome")],
    "data record": [(0, 2, "type"), (2, 2, "flags"), (4, 4, "epoch"), (8, 4, "sequence"), (12, 2, "extents"),
                    (14, 2, "reserved"), (16, 4, "payload"), (20, 8, "reserved"), (28, 4, "crc")],
    "extent": [(0, 2, "block"), (2, 1, "kind"), (3, 1, "reserved"), (4, 4, "pages"), (8, 8, "first")],
    "rdma request": [(0, 4, "magic"), (4, 2, "version"), (6, 2, "reserved"), (8, 48, "ticket")],
    "rdma refusal": [(0, 4, "magic"), (4, 2, "code"), (6, 1, "text size"), (7, "n", "text")],
    "rdma frame": [(0, 4, "credits"), (4, 4, "size")],
    "rdma key": [(0, 4, "rkey"), (4, 8, "base"), (12, 8, "size")],
}
EMPTY = {"LOADED", "RUN", "RUNNING", "BYE", "OUTCOME_ASK"}
BYTES = {"magic", "session", "token", "ticket"}


def fixed_size(name):
    return sum(size for _, size, _ in LAYOUTS[name] if isinstance(size, int))


class Cursor:
    def __init__(self, data, what):
        self.data, self.what, self.at = data, what, 0

    @property
    def left(self):
        return len(self.data) - self.at

    def take(self, size):
        if size > self.left:
            refuse(f"{self.what} ends too early")
        self.at += size
        return self.data[self.at - size:self.at]

    def end(self):
        if self.left:
            refuse(f"{self.what}: {self.left} bytes too many")

    def fields(self, name):
        """The fields of a structure up to its first part of variable size, or to its end."""
        out = {}
        for _, size, field in LAYOUTS[name]:
            if not isinstance(size, int):
                break
            raw = self.take(size)
            if field == "reserved":
                if any(raw):
                    refuse(f"{self.what}: reserved bytes are set")
            else:
                out[field] = raw if field in BYTES else int.from_bytes(raw, "big")
        return out

    def text(self, size, most, what):
        raw = self.take(size)
        if size > most or b"\0" in raw:
            refuse(f"{self.what}: malformed {what}")
        return raw.decode("utf-8", "replace")

    def text8(self, most, what, empty=False):
        size = self.take(1)[0]
        if size > most or (size == 0 and not empty):
            refuse(f"{self.what}: malformed {what}")
        return self.text(size, most, what)


def check_crc(expected, *parts, what):
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    if crc != expected:
        refuse(f"{what}: checksum does not match")


# ---- section 3 ----

def decode_hello(data):
    if len(data) != 96:
        refuse("a hello has 96 bytes")
    if data[:8] != HELLO_MAGIC:
        refuse("not a hello")
    check_crc(int.from_bytes(data[92:], "big"), data[:92], what="hello")
    newest, oldest = int.from_bytes(data[8:10], "big"), int.from_bytes(data[10:12], "big")
    if oldest > VERSION or newest < OLDEST:
        refuse("versions do not meet", "MISMATCH")
    hello = Cursor(data, "hello").fields("hello")
    if hello["role"] not in ROLES:
        refuse(f"hello of role {hello['role']}")
    return hello


def answer_size(head):
    if head[:8] != ANSWER_MAGIC:
        refuse("not an answer")
    size = int.from_bytes(head[12:14], "big")
    if size > ANSWER_TEXT_MAX:
        refuse(f"answer with {size} bytes of text")
    return 32 + size


def decode_answer(data):
    if len(data) < 32 or len(data) != answer_size(data):
        refuse("answer of a wrong size")
    cursor = Cursor(data, "answer")
    check_crc(int.from_bytes(data[28:32], "big"), data[:28], data[32:], what="answer")
    answer = cursor.fields("answer")
    answer["text"] = cursor.text(answer["text size"], ANSWER_TEXT_MAX, "text")
    return answer


def check_answer(answer):
    """What the connecting side does with an answer: Refused with the code it reports."""
    if answer["code"] != 0:
        name = ERRORS.get(answer["code"])
        refuse(answer["text"], name if name in ("MISMATCH", "BUSY") else "NOT_ADMITTED")
    if not OLDEST <= answer["version"] <= VERSION:
        refuse(f"version {answer['version']} was not offered")


# ---- sections 4, 5, 7, 8: control records ----

def body_fixed(name, body):
    cursor = Cursor(body, name)
    fields = cursor.fields(name)
    cursor.end()
    return fields


def body_error(name, body):
    cursor = Cursor(body, name)
    fields = cursor.fields(name)
    if fields["text size"] > ERROR_TEXT_MAX or fields["text size"] != cursor.left:
        refuse("malformed ERROR")
    fields["text"] = cursor.take(cursor.left).split(b"\0")[0].decode("utf-8", "replace")
    return fields


def body_offer(name, body):
    cursor = Cursor(body, name)
    offer = {}
    for field, size in (("features", 8), ("channels", 2), ("blocks", 2), ("page size", 4), ("populated", 8),
                        ("slice size", 4)):
        offer[field] = int.from_bytes(cursor.take(size), "big")
    offer["compression"] = cursor.text8(NAME_MAX, "compression", empty=True)
    if not 1 <= offer["channels"] <= CHANNELS_MAX or not 1 <= offer["blocks"] <= BLOCKS_MAX:
        refuse("OFFER: a count is out of range")
    if offer["slice size"] not in (SLICE_SIZES if offer["features"] & FEATURE_PLACED else {0}):
        refuse(f"OFFER: slices of {offer['slice size']} bytes")
    blocks = []
    for _ in range(offer["blocks"]):
        block = {"id": cursor.text8(NAME_MAX, "block id"), "size": int.from_bytes(cursor.take(8), "big"),
                 "page size": int.from_bytes(cursor.take(4), "big")}
        if block["size"] == 0 or block["size"] % PAGE or block["size"] > BLOCK_SIZE_MAX:
            refuse(f"OFFER: block {block['id']} of {block['size']} bytes")
        if any(block["id"] == other["id"] for other in blocks):
            refuse(f"OFFER: two blocks called {block['id']}")
        blocks.append(block)
    cursor.end()
    offer["blocks"] = blocks
    return offer


def check_offer(offer, channels=0):
    """What a destination demands beyond good form. channels: its own number, 0 for none."""
    if offer["page size"] != PAGE:
        refuse("another page size", "MISMATCH")
    if channels and channels != offer["channels"]:
        refuse("another number of channels", "MISMATCH")
    if offer["compression"] != "none":
        refuse("a compression that version 1 does not have", "MISMATCH")


def body_accept(name, body):
    cursor = Cursor(body, name)
    accept = cursor.fields(name)
    if accept["blocks"] > BLOCKS_MAX or accept["tokens"] > CHANNELS_MAX + 1:
        refuse("ACCEPT: a count is out of range")
    accept["fresh"] = list(cursor.take(accept["blocks"]))
    if any(fresh > 1 for fresh in accept["fresh"]):
        refuse("ACCEPT: fresh is neither 0 nor 1")
    accept["tokens"] = [cursor.fields("ACCEPT token") for _ in range(accept["tokens"])]
    cursor.end()
    return accept


def check_accept(accept, offer):
    if accept["features"] & ~offer["features"] or accept["channels"] != offer["channels"] \
            or accept["blocks"] != len(offer["blocks"]) or len(accept["tokens"]) != offer["channels"] + 1:
        refuse("ACCEPT does not answer the OFFER")
    for i, token in enumerate(accept["tokens"]):
        due = (1, i, 0) if i < offer["channels"] else (0, 0, 1)
        if (token["role"], token["channel"], token["epoch"]) != due:
            refuse(f"ACCEPT: token {i} is not the one due")


def body_register(name, body):
    cursor = Cursor(body, name)
    runs = []
    while cursor.left or not runs:
        runs.append(cursor.fields("REGISTER run"))
    if len(runs) > REGISTER_RUNS_MAX or any(run["slices"] == 0 for run in runs):
        refuse("malformed REGISTER")
    return {"runs": runs}


def body_key(name, body):
    cursor = Cursor(body, name)
    key = cursor.fields(name)
    if key["key size"] > KEY_MAX or key["key size"] != cursor.left:
        refuse("malformed KEY")
    key["key"] = cursor.take(cursor.left)
    return key


def body_state(name, body):
    cursor = Cursor(body, name)
    state = {"name": cursor.text8(NAME_MAX, "name"), "flags": cursor.take(1)[0]}
    state["offset"] = int.from_bytes(cursor.take(8), "big")
    if state["flags"] & ~STATE_LAST:
        refuse("STATE: unknown flags")
    state["data"] = cursor.take(cursor.left)
    return state


def body_outcome(name, body):
    outcome = body_fixed(name, body)
    if outcome["outcome"] not in OUTCOMES:
        refuse(f"OUTCOME {outcome['outcome']}")
    return outcome


BODIES = {"HEARTBEAT": body_fixed, "ERROR": body_error, "OFFER": body_offer, "ACCEPT": body_accept, "KEY": body_key,
          "REGISTER": body_register,
          "EPOCH_ACK": body_fixed, "STATE": body_state, "COMMIT": body_fixed, "OUTCOME": body_outcome}


def record_size(head):
    """The size of a whole record from the 16 bytes of its header."""
    if any(head[2:4]):
        refuse("record header: reserved bytes are set")
    size = int.from_bytes(head[4:8], "big")
    if size > BODY_MAX:
        refuse(f"record with a body of {size} bytes")
    return 16 + size


def decode_record(data, sequence=0, sender=None):
    """One control record. sender: who sent it, where that is known."""
    if len(data) < 16 or len(data) != record_size(data):
        refuse("record of a wrong size")
    head, body = data[:16], data[16:]
    record = Cursor(head, "record").fields("record")
    check_crc(record["crc"], head[:12], body, what="record")
    if record["sequence"] != sequence:
        refuse(f"record {record['sequence']} where {sequence} was due")
    name, by = RECORDS.get(record["type"], (None, None))
    if name is None:
        if record["type"] < OPTIONAL:
            refuse(f"unknown record type {record['type']}")
        record.update(name="optional", body={})
        return record
    if sender is not None and by not in ("both", sender):
        refuse(f"{name} from a {sender}")
    if name in EMPTY and body:
        refuse(f"{name} with a body")
    record.update(name=name, body=BODIES[name](name, body) if name in BODIES else {})
    return record


class StateSet:
    """The device state a destination puts together."""

    def __init__(self):
        self.streams = {}  # name: [bytes so far, complete]

    def add(self, state):
        if state["name"] not in self.streams and len(self.streams) == STREAMS_MAX:
            refuse("too many device states", "NO_MEMORY")
        stream = self.streams.setdefault(state["name"], [0, False])
        if stream[1] or state["offset"] != stream[0]:
            refuse(f"device state {state['name']}: a gap, or bytes after its end")
        total = sum(size for size, _ in self.streams.values())
        if stream[0] + len(state["data"]) > STREAM_MAX or total + len(state["data"]) > STREAMS_TOTAL_MAX:
            refuse(f"device state {state['name']} is too big", "TOO_BIG")
        stream[0] += len(state["data"])
        stream[1] = bool(state["flags"] & STATE_LAST)

    @property
    def complete(self):
        return all(done for _, done in self.streams.values())


class FromSource:
    """The records of a source on its first control connection, in their order."""

    def __init__(self):
        self.sequence, self.offer, self.commit, self.run, self.bye = 0, None, None, False, False
        self.states, self.registered = StateSet(), set()

    def take_register(self, body):
        if not self.offer or self.commit or not self.offer["features"] & FEATURE_PLACED:
            refuse("REGISTER out of place")
        for run in body["runs"]:
            size = self.offer["blocks"][run["block"]]["size"] if run["block"] < len(self.offer["blocks"]) else 0
            slices = -(-size // self.offer["slice size"])
            asked = {(run["block"], run["first"] + i) for i in range(min(run["slices"], slices + 1))}
            if run["first"] + run["slices"] > slices or asked & self.registered:
                refuse(f"REGISTER of slices that there are not, or that were asked for: {run}")
            self.registered |= asked

    def take(self, data):
        record = decode_record(data, self.sequence, SOURCE)
        self.sequence += 1
        name, body = record["name"], record["body"]
        if name == "OFFER":
            if self.offer:
                refuse("a second OFFER")
            self.offer = body
        elif name == "REGISTER":
            self.take_register(body)
        elif name == "STATE":
            if not self.offer or self.commit:
                refuse("STATE out of place")
            self.states.add(body)
        elif name == "COMMIT":
            if self.commit or not self.offer:
                refuse("COMMIT out of place")
            self.commit = body
        elif name == "RUN":
            if self.run or not self.commit:
                refuse("RUN out of place")
            self.run = True
        elif name == "BYE":
            if not self.run:
                refuse("BYE out of place")
            self.bye = True
        elif name == "OUTCOME_ASK":
            refuse("OUTCOME_ASK on the first control connection")
        return record


class FromDestination:
    """The records of a destination on the first control connection, in their order. source: what it answers."""

    def __init__(self, source=None):
        self.source = source
        self.sequence, self.accept, self.acked, self.loaded, self.running = 0, None, 0, False, False
        self.arrived, self.keys = 0, set()

    def take(self, data):
        record = decode_record(data, self.sequence, DESTINATION)
        self.sequence += 1
        name, body = record["name"], record["body"]
        if name == "ACCEPT":
            if self.accept:
                refuse("a second ACCEPT")
            self.accept = body
        elif name == "KEY":
            slice = (body["block"], body["slice"])
            if not self.accept or not self.accept["features"] & FEATURE_PLACED or slice in self.keys \
                    or body["block"] >= self.accept["blocks"] or (self.source and slice not in self.source.registered):
                refuse("KEY out of place")
            self.keys.add(slice)
        elif name == "EPOCH_ACK":
            if not self.accept or body["epoch"] <= self.acked or body["arrived"] < self.arrived or self.loaded:
                refuse("EPOCH_ACK out of place")
            self.acked, self.arrived = body["epoch"], body["arrived"]
        elif name == "LOADED":
            if not self.accept or self.loaded:
                refuse("LOADED out of place")
            self.loaded = True
        elif name == "RUNNING":
            if not self.loaded or self.running:
                refuse("RUNNING out of place")
            self.running = True
        elif name == "OUTCOME":
            refuse("OUTCOME on the first control connection")
        return record


# ---- section 6: data records ----

def data_sizes(head):
    """(bytes of extents, bytes of payload) from the 32 bytes of a data record's header, which are checked."""
    fields = Cursor(head, "data record").fields("data record")
    if fields["type"] not in DATA_RECORDS or fields["flags"] & ~FLAG_PLACED:
        refuse(f"data record of type {fields['type']}, flags {fields['flags']:#x}")
    bare = DATA_RECORDS[fields["type"]] != "PAGES"
    if fields["extents"] > EXTENTS_MAX or fields["payload"] > PAYLOAD_MAX:
        refuse("data record: sizes beyond their maxima")
    if bare != (fields["extents"] == 0) or (bare and (fields["payload"] or fields["flags"])):
        refuse("data record: a MARKER or an END with content, or PAGES without")
    return 16 * fields["extents"], fields["payload"]


def decode_data(data, ram, sequence=0, placed=False):
    """One data record. ram: pages of each block; placed: was the feature accepted?"""
    if len(data) < 32:
        refuse("data record of a wrong size")
    extents_size, payload = data_sizes(data[:32])
    if len(data) != 32 + extents_size + payload:
        refuse("data record of a wrong size")
    record = Cursor(data, "data record").fields("data record")
    if record["sequence"] != sequence:
        refuse(f"data record {record['sequence']} where {sequence} was due")
    check_crc(record["crc"], data[:28], data[32:32 + extents_size], what="data record")
    cursor = Cursor(data[32:32 + extents_size], "extent")
    extents = [cursor.fields("extent") for _ in range(record["extents"])]
    normal = 0
    for extent in extents:
        pages = ram[extent["block"]] if extent["block"] < len(ram) else 0
        if extent["kind"] not in EXTENT_KINDS or extent["pages"] == 0 or extent["first"] >= pages \
                or extent["pages"] > pages - extent["first"]:
            refuse(f"extent leaves the guest's memory: {extent}")
        normal += extent["pages"] if EXTENT_KINDS[extent["kind"]] == "normal" else 0
    if record["flags"] & FLAG_PLACED and not placed:
        refuse("placed pages, which were not agreed on")
    if normal > NORMAL_MAX or payload != (0 if record["flags"] & FLAG_PLACED else normal * PAGE):
        refuse(f"data record: {normal} pages in {payload} bytes")
    record.update(name=DATA_RECORDS[record["type"]], extents=extents, content=data[32 + extents_size:])
    return record


class DataStream:
    """The records of one data channel, in their order: sequence, epochs, markers. They go on over its connections."""

    def __init__(self, ram, placed=False):
        self.ram, self.placed, self.sequence, self.marked, self.ended = ram, placed, 0, 0, False

    def next_connection(self):
        if not self.ended:
            refuse("records of a connection before the END of the one before")
        self.ended = False

    def take(self, data):
        if self.ended:
            refuse("a record after END")
        record = decode_data(data, self.ram, self.sequence, self.placed)
        self.sequence += 1
        if record["epoch"] != self.marked + 1:
            refuse(f"{record['name']} of epoch {record['epoch']} after the marker of {self.marked}")
        if record["name"] == "MARKER":
            self.marked = record["epoch"]
        self.ended = record["name"] == "END"
        return record


# ---- streams of bytes: what a connection carried, cut into messages ----

def split_records(data):
    """Whole control records of a stream; what is left at its end is a cut-off record."""
    at = 0
    while len(data) - at >= 16:
        size = record_size(data[at:at + 16])
        if len(data) - at < size:
            break
        yield data[at:at + size]
        at += size
    if at != len(data):
        refuse(f"the stream ends within a record, {len(data) - at} bytes of it are there")


def split_data(data):
    at = 0
    while len(data) - at >= 32:
        size = 32 + sum(data_sizes(data[at:at + 32]))
        if len(data) - at < size:
            break
        yield data[at:at + size]
        at += size
    if at != len(data):
        refuse(f"the stream ends within a data record, {len(data) - at} bytes of it are there")


# ---- section 13: what RDMA adds ----

def decode_rdma_request(data):
    """The private data of a request to connect."""
    try:
        request = Cursor(data, "request").fields("rdma request")
    except Refused as refused:
        refuse(refused.text, "NOT_ADMITTED")
    if request["magic"] != RDMA_MAGIC or request["version"] != RDMA_VERSION:
        refuse("a stranger's request", "NOT_ADMITTED")
    return request


def decode_rdma_refusal(data):
    """The private data of a reject."""
    try:
        cursor = Cursor(data, "refusal")
        refusal = cursor.fields("rdma refusal")
        text = cursor.take(refusal["text size"])
    except Refused as refused:
        refuse(refused.text, "NOT_ADMITTED")
    if refusal["magic"] != RDMA_MAGIC or refusal["code"] == 0 or len(text) > REFUSAL_TEXT_MAX \
            or text[:1] in (b"", b"\0"):
        refuse("a stranger's refusal", "NOT_ADMITTED")
    refusal["text"] = text.split(b"\0")[0].decode("utf-8", "replace")
    return refusal


def decode_rdma_frame(data):
    """One SEND, header and data."""
    cursor = Cursor(data, "frame")
    frame = cursor.fields("rdma frame")
    frame["end"], frame["size"] = bool(frame["size"] & FRAME_END), frame["size"] & ~FRAME_END
    if frame["size"] > FRAME_DATA_MAX or frame["size"] != cursor.left or (frame["end"] and frame["size"]):
        refuse("malformed frame")
    return frame


# ---- golden vectors ----

RDMA_DECODERS = {"rdma request": decode_rdma_request, "rdma refusal": decode_rdma_refusal,
                 "rdma frame": decode_rdma_frame}


def check_token(hello, before, accept):
    """Of a data connection: the token of ACCEPT, or the one made of that of the connection before, among those in before."""
    if ROLES[hello["role"]] != "data":
        return
    channel, epoch = hello["channel"], hello["epoch"]
    token = accept["tokens"][channel]["token"]
    for one in range(1, epoch + 1):
        token = next_token(token, hello["session"], hello["role"], channel, one)
    seen = [one["epoch"] for one in before.values() if (one["role"], one["channel"]) == (hello["role"], channel)]
    if hello["token"] != token or seen != list(range(epoch)):
        refuse(f"data channel {channel}: not the token of connection {epoch}, or not its turn", "NOT_ADMITTED")


def decode_session(vector):
    """All messages of a session file in their order: (connection, sender, what it is, dict)."""
    source = FromSource()
    control = {SOURCE: source, DESTINATION: FromDestination(source)}
    data, hellos, greeted = {}, {}, {}
    for connection, sender, raw in vector.parts:
        stage = greeted.get(connection, 0)
        if stage == 0:
            what, message = "hello", decode_hello(raw)
            check_token(message, hellos, control[DESTINATION].accept)
            hellos[connection] = message
        elif stage == 1:
            what, message = "answer", decode_answer(raw)
            check_answer(message)
        elif connection == "control":
            message = control[sender].take(raw)
            what = message["name"]
            if what == "ACCEPT":
                check_accept(message["body"], control[SOURCE].offer)
        else:
            offer, accept = control[SOURCE].offer, control[DESTINATION].accept
            ram = [block["size"] // PAGE for block in offer["blocks"]]
            hello = hellos[connection]
            stream = data.setdefault(hello["channel"], DataStream(ram, bool(accept["features"] & FEATURE_PLACED)))
            if stage == 2 and hello["epoch"] > 0:
                stream.next_connection()
            message = stream.take(raw)
            what = message["name"]
        greeted[connection] = stage + 1
        yield connection, sender, what, message


def decode_vector(vector):
    """All messages of a vector, as decode_session() gives them. Raises Refused."""
    kind, sender = vector.about["kind"], vector.about.get("from")
    if kind == "session":
        return list(decode_session(vector))
    if kind == "hello":
        return [(kind, SOURCE, kind, decode_hello(vector.data))]
    if kind == "answer":
        answer = decode_answer(vector.data)
        if "refused" not in vector.about:
            check_answer(answer)
        return [(kind, DESTINATION, kind, answer)]
    if kind in RDMA_DECODERS:
        return [("data", sender, kind, RDMA_DECODERS[kind](vector.data))]
    if kind == "record":
        record = decode_record(vector.data, vector.sequence, sender)
        if record["name"] == "OFFER":
            check_offer(record["body"])
        return [("control", sender, record["name"], record)]
    if kind == "data":
        record = decode_data(vector.data, vector.ram, vector.sequence, "placed" in vector.about)
        return [("data", SOURCE, record["name"], record)]
    if kind == "control":
        side = FromSource() if sender == SOURCE else FromDestination()
        return [("control", sender, record["name"], record)
                for record in (side.take(raw) for raw in split_records(vector.data))]
    if kind == "channel":
        stream = DataStream(vector.ram, "placed" in vector.about)
        return [("data", SOURCE, record["name"], record)
                for record in (stream.take(raw) for raw in split_data(vector.data))]
    raise ValueError(f"{vector.path}: unknown kind {kind}")


def readable(value):
    if isinstance(value, bytes):
        return f"{len(value)} bytes {value[:32].hex()}{'...' if len(value) > 32 else ''}"
    if isinstance(value, list):
        return "[" + ", ".join(readable(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {readable(item)}" for key, item in value.items()) + "}"
    return repr(value)


def main(paths):
    status = 0
    for path in paths:
        vector = read_vector(path)
        print(f"{path}: {vector.about.get('kind')}")
        try:
            for connection, sender, what, message in decode_vector(vector):
                print(f"  {connection} from {sender or 'either'}: {what}")
                for field, value in message.items():
                    print(f"    {field}: {readable(value)}")
        except Refused as refused:
            print(f"  refused, {refused}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
