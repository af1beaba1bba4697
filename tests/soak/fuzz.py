"""Runs the fuzzers of tests/fuzz, built for libFuzzer, each for a set time or number of executions."""
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).resolve().parent.parent / "fuzz" / "corpus"

LONGEST = {"options": 96}  # bytes of input, where libFuzzer's 4,096 would be spent in strtod()


@dataclass
class Result:
    target: str
    executions: int
    coverage: str
    right: bool
    output: str


def targets(build):
    return sorted(path for path in Path(build, "tests", "fuzz").glob("fuzz_*") if path.is_file() and os.access(path, os.X_OK))


def fuzz(program, build, seconds, runs):
    target = program.name.removeprefix("fuzz_")
    found = Path(build, "corpus", target)  # what is new goes here; worth keeping is what a bug came from
    found.mkdir(parents=True, exist_ok=True)
    crash = Path(build, "corpus", f"{target}-crash-")
    limit = [f"-runs={runs}"] if runs else [f"-max_total_time={seconds}"]
    answer = subprocess.run(
        ["nice", "-n", "10", program, *limit, f"-max_len={LONGEST.get(target, 4096)}", "-timeout=20",
         "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={crash}", found, CORPUS / target],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"})
    executions = re.search(r"number_of_executed_units: (\d+)", answer.stdout)
    coverage = re.findall(r"cov: (\d+)", answer.stdout)
    return Result(target, int(executions[1]) if executions else 0, coverage[-1] if coverage else "?",
                  answer.returncode == 0, answer.stdout)


def fuzz_all(build, seconds, runs=0, jobs=1):
    """Results as they come."""
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        for result in pool.map(lambda program: fuzz(program, build, seconds, runs), targets(build)):
            yield result
