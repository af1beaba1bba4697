#!/usr/bin/env python3
"""Which folder may include which: reads every #include of the tree and reports any edge that the design does not have.

A rule is a function that yields what breaks it in a tree; each is one test point. Below the rules for the tree stand
the tests of the rules themselves: a made-up tree with one forbidden edge for each, which must be reported.
"""
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "runner"))
import tap  # noqa: E402

# cli, perf -> engine -> session, multifd -> transport <- tcp, rdma, file;  guest -> include/godwit
MAY_INCLUDE = {
    "include": {"include"},
    "transport": {"transport", "include"},
    "tcp": {"tcp", "transport", "include"},
    "rdma": {"rdma", "transport", "include"},
    "file": {"file", "transport", "include"},
    "session": {"session", "transport", "include"},
    "multifd": {"multifd", "transport", "include"},
    "engine": {"engine", "session", "multifd", "transport", "include"},
    "guest": {"guest", "include"},
    "cli": {"cli", "engine", "guest", "transport", "multifd", "include"},
    "examples": {"include"},
    "perf": {"perf", "engine", "multifd", "transport", "include"},
}
TRANSPORTS = {"tcp", "rdma", "file"}
CHOOSES_TRANSPORTS = "engine/transports.c"
# Where system headers of a kind may be included, tests apart: a folder, or one file (the yardsticks go around the library).
SYSTEM_HEADERS = [
    ("socket headers stay in tcp and rdma",
     re.compile(r"(sys/(socket|un)|netinet/.*|arpa/inet|netdb|net/if|ifaddrs)\.h$"),
     {"tcp", "rdma", "perf/yardstick.c", "perf/bare_copy.c"}),
    ("verbs headers stay in rdma", re.compile(r"(infiniband/.*|rdma/rdma_.*)\.h$"), {"rdma"}),
    ("GnuTLS headers stay in tcp", re.compile(r"gnutls/.*"), {"tcp", "perf/bare_tls.c"}),
]
MOST_LINES = 1000
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.M)


@dataclass
class Include:
    path: str  # of the including file, from the root
    quoted: bool
    target: str

    @property
    def folder(self):
        return self.path.split("/")[0]

    def __str__(self):
        return f'{self.path} includes {self.target}'


class Tree:
    def __init__(self, root):
        self.files = {}  # path from the root: number of lines
        self.includes = []
        for path in sorted(root.rglob("*.[ch]")):
            name = path.relative_to(root).as_posix()
            if name.startswith((".", "build")) or "/." in name or not path.is_file():
                continue
            text = path.read_text(errors="replace")
            self.files[name] = text.count("\n")
            self.includes += [Include(name, kind == '"', target) for kind, target in INCLUDE.findall(text)]
        self.sources = [include for include in self.includes if include.folder != "tests"]

    def target_folder(self, include):
        """The folder of the project that an include leads to; None for a system header."""
        if include.target.startswith("godwit/"):
            return "include"
        if include.quoted or include.target in self.files:
            return include.target.split("/")[0]
        return None


def folder_rule(folder):
    def rule(tree):
        for include in tree.sources:
            target = tree.target_folder(include)
            if include.folder != folder or target is None:
                continue
            if include.path == CHOOSES_TRANSPORTS and target in TRANSPORTS:
                continue
            if target in MAY_INCLUDE and target not in MAY_INCLUDE[folder]:
                yield str(include)
    return rule


def transports_rule(tree):
    for include in tree.sources:
        target = tree.target_folder(include)
        if target in TRANSPORTS and target != include.folder and include.path != CHOOSES_TRANSPORTS:
            yield str(include)


def system_rule(pattern, places):
    def rule(tree):
        for include in tree.sources:
            if not include.quoted and pattern.match(include.target) and not {include.folder, include.path} & places:
                yield str(include)
    return rule


def public_form_rule(tree):
    for include in tree.includes:
        if include.quoted and include.target.startswith(("godwit/", "include/")):
            yield f"{include}: a public header is included as <godwit/...>"


def private_form_rule(tree):
    for include in tree.sources:
        if include.quoted and not include.target.startswith(("godwit/", "include/")):
            if include.target not in tree.files:
                yield f'{include}: a private header is included as "folder/file.h"'
        elif not include.quoted and include.target in tree.files:
            yield f"{include}: a private header is included in quotes"


def known_folder_rule(tree):
    for path in tree.files:
        if path.split("/")[0] not in MAY_INCLUDE.keys() | {"tests"}:
            yield f"{path} lies in a folder without a rule"


def length_rule(tree):
    for path, lines in tree.files.items():
        if lines > MOST_LINES:
            yield f"{path} has {lines} lines, more than {MOST_LINES}"


def rules():
    for folder, allowed in MAY_INCLUDE.items():
        yield f"{folder} includes only {', '.join(sorted(allowed))}", folder_rule(folder)
    yield f"only {CHOOSES_TRANSPORTS} names tcp, rdma and file", transports_rule
    for name, pattern, places in SYSTEM_HEADERS:
        yield name, system_rule(pattern, places)
    yield "public headers are included as <godwit/...>", public_form_rule
    yield 'private headers are included as "folder/file.h"', private_form_rule
    yield "every folder of sources has a rule", known_folder_rule
    yield f"no source file is longer than {MOST_LINES} lines", length_rule


# A file of a made-up tree, and the one rule that it breaks (None: none).
FIXTURES = [
    ("transport/wire.c", '#include "engine/engine.h"\n', "transport includes"),
    ("transport/wire.c", '#include "tcp/tcp.h"\n', "only engine/transports.c"),
    ("session/admit.c", '#include "multifd/batch.h"\n', "session includes"),
    ("multifd/sender.c", '#include "session/admit.h"\n', "multifd includes"),
    ("engine/source.c", '#include "cli/cli.h"\n', "engine includes"),
    ("engine/source.c", '#include "tcp/tcp.h"\n', "only engine/transports.c"),
    ("engine/source.c", '  #  include   "guest/guest.h"\n', "engine includes"),
    ("tcp/tcp.c", '#include "rdma/rdma.h"\n', "only engine/transports.c"),
    ("rdma/rdma.c", '#include "tcp/tcp.h"\n', "only engine/transports.c"),
    ("rdma/rdma.c", '#include "engine/engine.h"\n', "rdma includes"),
    ("cli/main.c", '#include "rdma/rdma.h"\n', "only engine/transports.c"),
    ("guest/process.c", '#include "transport/error.h"\n', "guest includes"),
    ("cli/main.c", '#include "session/admit.h"\n', "cli includes"),
    ("perf/copy.c", '#include "cli/cli.h"\n', "perf includes"),
    ("include/godwit/error.h", '#include "transport/error.h"\n', "include includes"),
    ("engine/source.c", "#include <sys/socket.h>\n", "socket headers"),
    ("cli/main.c", "#include <netinet/tcp.h>\n", "socket headers"),
    ("perf/copy.c", "#include <sys/socket.h>\n", "socket headers"),
    ("cli/main.c", "#include <ifaddrs.h>\n", "socket headers"),
    ("tcp/tcp.c", "#include <infiniband/verbs.h>\n", "verbs headers"),
    ("tcp/tcp.c", "#include <rdma/rdma_cma.h>\n", "verbs headers"),
    ("session/admit.c", "#include <gnutls/gnutls.h>\n", "GnuTLS headers"),
    ("perf/copy.c", "#include <gnutls/gnutls.h>\n", "GnuTLS headers"),
    ("perf/bare_tls.c", "#include <sys/socket.h>\n", "socket headers"),
    ("tests/unit.c", '#include "godwit/error.h"\n', "public headers"),
    ("engine/source.c", '#include "source.h"\n', "private headers"),
    ("engine/source.c", "#include <transport/error.h>\n", "private headers"),
    ("helpers/list.c", "", "every folder"),
    ("tests/long.c", "\n" * 1001, "no source file"),
    ("tests/unit.c", '#include "tcp/tcp.h"\n#include <sys/socket.h>\n', None),
    ("engine/transports.c", '#include "tcp/tcp.h"\n#include "file/file.h"\n#include "rdma/rdma.h"\n', None),
    ("engine/source.c", '#include "session/admit.h"\n#include "multifd/batch.h"\n#include <sys/uio.h>\n', None),
    ("cli/main.c", '#include "engine/engine.h"\n#include "guest/guest.h"\n#include <godwit/error.h>\n', None),
    ("rdma/connect.c", '#include <rdma/rdma_cma.h>\n#include <netdb.h>\n#include "rdma/rdma.h"\n', None),
    ("tcp/tcp.c", "#include <gnutls/gnutls.h>\n#include <sys/un.h>\n", None),
    ("perf/bare_copy.c", "#include <sys/socket.h>\n#include <netinet/tcp.h>\n", None),
    ("perf/yardstick.c", "#include <sys/socket.h>\n#include <netinet/tcp.h>\n", None),
    ("perf/bare_tls.c", "#include <gnutls/gnutls.h>\n", None),
    ("tests/full.c", "\n" * 1000, None),
]
HEADERS = ["cli/cli.h", "engine/engine.h", "file/file.h", "guest/guest.h", "include/godwit/error.h", "multifd/batch.h",
           "rdma/rdma.h", "session/admit.h", "tcp/tcp.h", "transport/error.h"]


def broken_rules(path, text):
    """The names of the rules that a tree of HEADERS and one file breaks."""
    with tempfile.TemporaryDirectory(prefix="godwit-layering-") as root:
        root = Path(root)
        for name, content in [(header, "") for header in HEADERS] + [(path, text)]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        tree = Tree(root)
        return [name for name, rule in rules() if list(rule(tree))]


def main(root):
    t = tap.Writer()
    tree = Tree(Path(root))
    t.ok(len(tree.sources) > 100, "the tree is read", [f"only {len(tree.sources)} includes found below {root}"])
    for name, rule in rules():
        broken = list(rule(tree))
        t.ok(not broken, name, broken)
    for path, text, expected in FIXTURES:
        broken = broken_rules(path, text)
        title = text.replace("\n", " ").replace("#", "").strip() or f"{text.count(chr(10))} lines"
        if expected is None:
            t.ok(not broken, f"allowed: {path}: {title}", broken)
        else:
            t.ok(any(name.startswith(expected) for name in broken), f"reported: {path}: {title}",
                 broken or ["nothing reported"])
    return t.done()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else HERE.parent.parent))
