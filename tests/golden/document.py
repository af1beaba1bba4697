#!/usr/bin/env python3
"""The document, the golden vectors and the independent decoder agree.

    document.py ROOT

Tables of docs/protocol.md are compared with the constants of decode.py, its example with the session file, what it says of
errors and defaults with the headers of the library.
"""
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent / "runner")]
import decode  # noqa: E402
import tap  # noqa: E402
from vectors import parse_hex, read_vector  # noqa: E402

ROW = re.compile(r"^\|(.*)\|\s*$")
RULE = re.compile(r"^\|[\s|:-]+\|\s*$")
LAYOUT = re.compile(r"^Layout `([^`]+)`")


class Table:
    def __init__(self, head, layout):
        self.head, self.layout, self.rows = head, layout, []

    def numbers(self, *columns):
        """{number in the first column: the named columns}, a single one without a tuple."""
        at = [self.head.index(column) for column in columns]
        values = {int(row[0]): tuple(row[i] for i in at) for row in self.rows}
        return {number: value[0] if len(at) == 1 else value for number, value in values.items()}


def tables_of(text):
    """All tables, each with the name of the layout whose line stands before it."""
    tables, table, layout, fenced = [], None, None, False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        match = None if fenced else ROW.match(line)
        if not match:
            named = LAYOUT.match(line)
            layout = named[1] if named else layout if not line.strip() else None
            table = None
        elif table is None:
            table = Table([cell.strip() for cell in match[1].split("|")], layout)
            tables.append(table)
            layout = None
        elif not RULE.match(line):
            table.rows.append([cell.strip() for cell in match[1].split("|")])
    return tables


def find(tables, *head):
    return next(table for table in tables if table.head[:len(head)] == list(head))


# ---- vectors ----

def check_good(t, path):
    vector = read_vector(path)
    try:
        messages = decode.decode_vector(vector)
        t.ok(len(messages) > 0, f"{path.name} decodes")
        return messages
    except decode.Refused as refused:
        t.ok(False, f"{path.name} decodes", [str(refused)])
        return []


def check_bad(t, path):
    vector = read_vector(path)
    expected = vector.about.get("expect")
    first = path.read_text().splitlines()[0]
    try:
        decode.decode_vector(vector)
        said = "nothing"
    except decode.Refused as refused:
        said = refused.name
    t.ok(said == expected and expected in decode.CODES and first == f"# expect: {expected}", f"{path.name}: {expected}",
         [f"refused with {said}", first])


def check_flipped_bits(t, path):
    """Whatever bit of a small message changes on its way, the message is refused. The content of pages carries no CRC."""
    vector = read_vector(path)
    data, kind = vector.data, vector.about["kind"]
    covered = len(data)
    if kind == "data":
        covered = 32 + decode.data_sizes(data[:32])[0]
    if kind not in ("hello", "answer", "record", "data") or covered > 400:
        return
    decoders = {
        "hello": decode.decode_hello, "answer": decode.decode_answer, "record": decode.decode_record,
        "data": lambda raw: decode.decode_data(raw, vector.ram, placed="placed" in vector.about),
    }
    missed = []
    for bit in range(8 * covered):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            decoders[kind](bytes(damaged))
            missed.append(bit)
        except decode.Refused:
            pass
    t.ok(not missed, f"{path.name}: any flipped bit is refused", [f"bits {missed[:10]} are not"])


# ---- the document ----

def check_layouts(t, tables):
    documented = {table.layout: table for table in tables if table.layout}
    t.ok(set(documented) == set(decode.LAYOUTS), "the document has the decoder's layouts",
         sorted(set(documented) ^ set(decode.LAYOUTS)))
    for name, expected in decode.LAYOUTS.items():
        rows = [tuple(row[:3]) for row in documented[name].rows] if name in documented else []
        wanted = [tuple(str(cell) for cell in row) for row in expected]
        t.ok(rows == wanted, f"layout {name}", [f"document: {rows}", f"decoder:  {wanted}"])
        at = 0
        for offset, size, field in expected:  # without gap or overlap, as far as numbers go
            if not isinstance(offset, int) or not isinstance(size, int):
                break
            t.ok(offset == at, f"layout {name}: {field} follows what is before it", [offset, at])
            at += size


def check_numbers(t, tables):
    sent = find(tables, "number", "record", "sent by").numbers("record", "sent by")
    t.ok(sent == decode.RECORDS, "types of control records, and who sends them", [sent])
    for head, expected in (("data record", decode.DATA_RECORDS), ("extent kind", decode.EXTENT_KINDS),
                           ("role", decode.ROLES), ("outcome", decode.OUTCOMES)):
        got = find(tables, "number", head).numbers(head)
        t.ok(got == expected, f"numbers: {head}", [got, expected])
    features = find(tables, "bit", "feature").numbers("feature")
    t.ok(features == decode.FEATURES, "features", [features])
    errors = find(tables, "code", "name").numbers("name")
    t.ok(errors == decode.ERRORS, "codes of errors", [errors])


def check_limits(t, tables):
    stated = {row[0]: int(re.match(r"\d+", row[1])[0]) for row in find(tables, "limit", "value").rows}
    known = {
        "hello": sum(size for _, size, _ in decode.LAYOUTS["hello"]), "text of an answer": decode.ANSWER_TEXT_MAX,
        "body of a control record": decode.BODY_MAX, "text of ERROR": decode.ERROR_TEXT_MAX,
        "data channels": decode.CHANNELS_MAX, "blocks": decode.BLOCKS_MAX,
        "id of a block, name of a stream, name of a compression": decode.NAME_MAX, "block": decode.BLOCK_SIZE_MAX,
        "key": decode.KEY_MAX, "runs of a REGISTER": decode.REGISTER_RUNS_MAX,
        "device states": decode.STREAMS_MAX, "one device state": decode.STREAM_MAX,
        "all device states": decode.STREAMS_TOTAL_MAX,
        "extents of a data record": decode.EXTENTS_MAX, "normal pages of a data record": decode.NORMAL_MAX,
        "payload of a data record": decode.PAYLOAD_MAX,
    }
    wrong = [f"{name}: {stated.get(name)}, decoder {value}" for name, value in known.items() if stated.get(name) != value]
    t.ok(not wrong, "limits", wrong)
    bodies = {row[1]: int(row[3]) for row in find(tables, "number", "record", "sent by").rows}
    computed = {
        "HEARTBEAT": 16, "ERROR": 4 + decode.ERROR_TEXT_MAX, "OFFER": 29 + 63 + 1024 * (1 + 63 + 8 + 4),
        "ACCEPT": 16 + 1024 + 256 * 40, "KEY": 8 + decode.KEY_MAX, "EPOCH_ACK": 12, "STATE": decode.BODY_MAX,
        "COMMIT": 8, "OUTCOME": 1, "REGISTER": 12 * decode.REGISTER_RUNS_MAX, **{name: 0 for name in decode.EMPTY},
    }
    t.ok(bodies == computed, "largest bodies", [bodies, computed])


def check_example(t, text, session):
    block = re.search(r"^```hex\n(.*?)^```", text, re.S | re.M)
    shown = parse_hex(block[1]) if block else None
    parts = read_vector(session).parts
    t.ok(shown is not None and shown.parts == parts, "the example of section 12 is good/session.hex, byte for byte")
    t.ok(block is not None and block[1].strip() == session.read_text().strip(), "and comment for comment")
    said = [what for _, _, what, _ in decode.decode_vector(read_vector(session))]
    wanted = ["hello", "answer", "OFFER", "ACCEPT", "hello", "answer", "PAGES", "MARKER", "EPOCH_ACK", "STATE", "COMMIT",
              "LOADED", "RUN", "RUNNING", "BYE"]
    t.ok(said == wanted, "it shows every message of a migration", [said])
    total = sum(len(data) for connection, sender, data in parts[6:] if connection == "data0" and sender == decode.SOURCE)
    acks = [message["body"]["arrived"] for _, _, what, message in decode.decode_vector(read_vector(session))
            if what == "EPOCH_ACK"]
    t.ok(acks == [total], "its EPOCH_ACK counts the bytes before it", [acks, total])


def check_library(t, root, tables):
    header = (root / "include/godwit/error.h").read_text()
    codes = {int(number): name for name, number in re.findall(r"GODWIT_(?:ERR_)?(\w+) = (\d+),", header)}
    codes = {number: name for number, name in codes.items() if number in decode.ERRORS or name in decode.CODES}
    t.ok(codes == decode.ERRORS, "codes of errors are those of include/godwit/error.h", [codes])
    options = (root / "engine/options.c").read_text()
    defaults = {name: int(value) for name, value in
                re.findall(r'\{"([a-z-]+)", GODWIT_OPTION_MS, \w+, \w+, \d+, \d+, (\d+),', options)}
    stated = {row[0]: int(row[1]) for row in find(tables, "option").rows}
    wrong = [f"{name}: {value}, library {defaults.get(name)}" for name, value in stated.items()
             if defaults.get(name) != value]
    t.ok(stated and not wrong, "timeouts have the library's names and defaults", wrong)


def check_deviations(t, tables, paths):
    rows = [row for table in tables if table.head[:2] == ["section", "demanded"] for row in table.rows]
    listed = {word for row in rows for word in re.findall(r"`([\w-]+)`", row[3])}
    listed = {word for word in listed if (HERE / "bad" / f"{word}.hex").exists()}
    marked = {path.stem for path in paths if {"deviation", "unsaid"} & set(read_vector(path).about)}
    t.ok(listed == marked, "the known deviations are those of the vectors", sorted(listed ^ marked))


def main(root):
    t = tap.Writer()
    good, bad = (sorted((HERE / folder).glob("*.hex")) for folder in ("good", "bad"))
    t.ok(len(good) >= 40 and len(bad) >= 100, "the vectors are there", [len(good), len(bad)])
    seen = {message[2] for path in good for message in check_good(t, path)}
    names = {name for name, _ in decode.RECORDS.values()} | set(decode.DATA_RECORDS.values()) | {"hello", "answer"}
    names |= set(decode.RDMA_DECODERS)
    t.ok(names <= seen, "every message has a good vector", sorted(names - seen))
    for path in bad:
        check_bad(t, path)
    for path in good:
        check_flipped_bits(t, path)
    text = (Path(root) / "docs/protocol.md").read_text()
    tables = tables_of(text)
    check_layouts(t, tables)
    check_numbers(t, tables)
    check_limits(t, tables)
    check_example(t, text, HERE / "good/session.hex")
    check_library(t, Path(root), tables)
    check_deviations(t, tables, bad)
    return t.done()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else HERE.parent.parent))
