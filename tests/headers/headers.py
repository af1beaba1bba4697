#!/usr/bin/env python3
"""Every public header compiles alone, and twice in a row, as C17 and as C++17.

    headers.py INCLUDE-DIR C-COMPILER [C++-COMPILER]
"""
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "runner"))
import tap  # noqa: E402

FLAGS = ["-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
LANGUAGES = [("C17", "c", "-std=c17"), ("C++17", "c++", "-std=c++17")]


def compile_text(compiler, language, standard, include, text):
    answer = subprocess.run([compiler, "-x", language, standard, *FLAGS, "-I", str(include), "-"], input=text,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return answer.returncode == 0, answer.stdout


def main(include, *compilers):
    t = tap.Writer()
    headers = sorted(path.relative_to(include).as_posix() for path in Path(include).rglob("*.h"))
    t.ok(headers, "there are public headers", [f"none below {include}"])
    for number, (name, language, standard) in enumerate(LANGUAGES):
        if number >= len(compilers):
            t.skip(f"headers as {name}", "no compiler for it")
            continue
        good, _ = compile_text(compilers[number], language, standard, include, "size_t undeclared;\n")
        t.ok(not good, f"a header that needs another one fails as {name}")
        for header in headers:
            text = f"#include <{header}>\n" * 2 + "typedef int unit;\n"
            good, output = compile_text(compilers[number], language, standard, include, text)
            t.ok(good, f"{header} compiles alone as {name}", [output])
    return t.done()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
