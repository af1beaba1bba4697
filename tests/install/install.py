#!/usr/bin/env python3
"""What `meson install` installs can be used: a program finds it by pkg-config, links it shared and static, and runs.

    install.py BUILD-DIR C-COMPILER PKG-CONFIG MESON
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "runner"))
import tap  # noqa: E402


def call(cmd, **env):
    """(did it succeed, its output)"""
    answer = subprocess.run([str(word) for word in cmd], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, env=dict(os.environ, **env))
    return answer.returncode == 0, answer.stdout


def only(root, pattern):
    found = sorted(root.rglob(pattern))
    return found[0] if found else None


def main(build, cc, pkg_config, meson):
    t = tap.Writer()
    with tempfile.TemporaryDirectory(prefix="godwit-install-") as scratch:
        scratch = Path(scratch)
        root = scratch / "root"
        good, output = call([meson, "install", "-C", build, "--no-rebuild", "--destdir", root])
        t.ok(good, "it installs", [output])

        pc, shared, static = only(root, "godwit.pc"), only(root, "libgodwit.so"), only(root, "libgodwit.a")
        tool, header = only(root, "bin/godwit"), only(root, "include/godwit/error.h")
        for name, path in [("the pkg-config file", pc), ("the shared library", shared), ("the static library", static),
                           ("the tool", tool), ("the headers", header)]:
            t.ok(path, f"{name} is there")
        if not (pc and shared and static and header):
            return t.done()
        t.ok(shared.is_symlink() and only(root, "libgodwit.so.0"), "the shared library carries its version")
        private = [path.name for path in root.rglob("*.a") if path != static]
        t.ok(not private, "no internal library is installed", private)

        prefix = header.parent.parent.parent
        query = [pkg_config, f"--define-variable=prefix={prefix}"]
        path = {"PKG_CONFIG_PATH": str(pc.parent)}
        good, flags = call(query + ["--cflags", "--libs", "godwit"], **path)
        t.ok(good, "pkg-config knows it", [flags])
        program = scratch / "shared"
        good, output = call([cc, "-std=c17", "-Wall", "-Werror", HERE / "program.c", "-o", program, *flags.split()])
        t.ok(good, "a program links it shared", [output])
        good, output = call([program], LD_LIBRARY_PATH=str(shared.parent))
        t.ok(good and output.strip(), "the program runs with it", [output])

        good, flags = call(query + ["--static", "--cflags", "--libs", "godwit"], **path)
        t.ok(good, "pkg-config knows what it needs to be linked static", [flags])
        program = scratch / "static"
        words = [str(static) if word == "-lgodwit" else word for word in flags.split()]
        good, output = call([cc, "-std=c17", "-Wall", "-Werror", HERE / "program.c", "-o", program, *words])
        t.ok(good, "a program links it static", [output])
        good, output = call([program], LD_LIBRARY_PATH="")
        t.ok(good and output.strip(), "the program runs without the shared library", [output])

        good, output = call(["nm", "-D", "--defined-only", shared])
        symbols = [line.split()[-1].split("@")[0] for line in output.splitlines() if line.strip()]
        t.ok(good and symbols, "the shared library exports something", [output])
        foreign = [symbol for symbol in symbols if not symbol.startswith("godwit_")]
        t.ok(not foreign, "all it exports is called godwit_*", foreign)
    return t.done()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
