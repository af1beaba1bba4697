"""The initramfs: PID 1 (init.c and agent.c, compiled here) and the modules that the host's files take; nothing else."""
import hashlib
import os
from pathlib import Path

import host
from host import Unavailable

HERE = Path(__file__).resolve().parent
SOURCES = [HERE / "init.c", HERE / "agent.c"]
HEADERS = [HERE / "agent.h"]
MODULES = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p"]
FLAGS = ["-std=gnu17", "-D_GNU_SOURCE", "-Os", "-static", "-Wall", "-Wextra", "-Wshadow", f"-I{HERE.parents[1]}"]


def build(cache, kernel):
    """The path of the initramfs, made again when what it is made of has changed. Call it with the cache locked."""
    content = b"".join(path.read_bytes() for path in [*SOURCES, *HEADERS, Path(__file__).resolve()])
    digest = hashlib.sha256(content + str(kernel.folder.stat().st_mtime_ns).encode()).hexdigest()[:16]
    path = cache / f"initramfs-{digest}"
    if not path.exists():
        for old in cache.glob("initramfs-*"):
            old.unlink()
        init = cache / "init"
        compile_init(init)
        files = [("init", init.read_bytes(), 0o100755)]
        for number, module in enumerate(with_dependencies(kernel, MODULES)):
            files.append((f"modules/{number:02}-{module.name}", module.read_bytes(), 0o100644))
        whole = cache / "initramfs.new"
        whole.write_bytes(cpio([("dev", b"", 0o040755), ("modules", b"", 0o040755), *files]))
        os.rename(whole, path)
    return path


def compile_init(path, *flags):
    host.run(host.need("cc", "gcc"), *FLAGS, *flags, *SOURCES, "-o", path)


def with_dependencies(kernel, names):
    """The files of modules, each after those that it needs. What is built in needs no file."""
    needs = {}
    try:
        lines = (kernel.modules / "modules.dep").read_text().splitlines()
    except OSError as error:
        raise Unavailable(f"{error.filename}: {error.strerror}; remove {kernel.folder}")
    for line in lines:
        path, _, rest = line.partition(":")
        needs[Path(path).name.partition(".")[0].replace("-", "_")] = [path, *rest.split()]
    paths = [path for name in names for path in reversed(needs.get(name, []))]
    return [kernel.modules / path for path in dict.fromkeys(paths)]


def cpio(files):
    """An archive in the form "newc" out of (name, content, mode)."""
    parts = []
    for inode, (name, content, mode) in enumerate([*files, ("TRAILER!!!", b"", 0)], 1):
        name = name.encode() + b"\0"
        fields = [inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        parts += [head, b"\0" * (-len(head) % 4), content, b"\0" * (-len(content) % 4)]
    return b"".join(parts)
