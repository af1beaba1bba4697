"""Golden vectors: files of hex text, read into what they hold. README.md describes the form."""
from dataclasses import dataclass


@dataclass
class Vector:
    """A file of hex text: pairs of digits, XX*N for N times the same byte, # comments.

    Comments of the form "# word: value" before the first byte describe the vector (the words are in README.md). In a
    session "# @ CONNECTION SENDER" says whose bytes follow.
    """
    path: str
    about: dict
    parts: list  # (connection, sender, bytes)

    @property
    def data(self):
        return b"".join(part[2] for part in self.parts)

    @property
    def sequence(self):
        return int(self.about.get("sequence", 0))

    @property
    def ram(self):
        return [int(word) for word in self.about.get("ram", "3").split()]


def parse_hex(text, path=""):
    about, parts, connection, sender, seen = {}, [], None, None, b""

    def close():
        nonlocal seen
        if seen:
            parts.append((connection, sender, seen))
        seen = b""

    for line in text.splitlines():
        code, _, comment = line.partition("#")
        comment = comment.strip()
        if comment.startswith("@"):
            close()
            _, connection, sender = comment.split()[:3]
        elif not code.strip() and not seen and not parts and ": " in comment:
            word, value = comment.split(": ", 1)
            about.setdefault(word, value.strip())
        for token in code.split():
            pair, _, count = token.partition("*")
            seen += bytes.fromhex(pair) * (int(count) if count else 1)
    close()
    return Vector(path, about, parts)


def read_vector(path):
    with open(path, encoding="utf-8") as file:
        return parse_hex(file.read(), str(path))
