"""Runs examples/embed as two processes, and compares README's excerpt with it."""
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "runner"))
from tap import Writer  # noqa: E402


def moves_and_counts_on(embed):
    with tempfile.TemporaryDirectory() as folder:
        uri = "unix:" + os.path.join(folder, "socket")
        receiver = subprocess.Popen([embed, "recv", uri], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        sender = subprocess.run([embed, "send", uri], capture_output=True, text=True, timeout=60)
        out, err = receiver.communicate(timeout=60)
    sent = re.fullmatch(r"sent after (\d+) steps\n", sender.stdout)
    went_on = re.fullmatch(r"running on from (\d+) steps\n", out)
    assert sent and sender.returncode == 0, sender.stderr
    assert went_on and receiver.returncode == 0, err
    assert int(went_on[1]) >= int(sent[1]), f"sent {sent[1]} steps, went on from {went_on[1]}"


def says_why_it_cannot(embed):
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run([embed, "send", "nowhere:" + folder], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and "nowhere" in result.stderr, result


def readme_quotes_it(root):
    readme = (root / "README.md").read_text()
    excerpt = re.search(r"<!-- embed: .*?-->\n```c\n(.*?)```", readme, re.S)
    assert excerpt, "README has no excerpt"
    assert excerpt[1] in (root / "examples" / "embed.c").read_text(), "README's excerpt is not in examples/embed.c"


def main():
    embed, root = sys.argv[1], Path(sys.argv[2])
    tap = Writer()
    for name, case in [
        ("the example moves and counts on", lambda: moves_and_counts_on(embed)),
        ("the example says why it cannot", lambda: says_why_it_cannot(embed)),
        ("README quotes the example", lambda: readme_quotes_it(root)),
    ]:
        try:
            case()
            tap.ok(True, name)
        except Exception as error:
            tap.ok(False, name, [repr(error)])
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
