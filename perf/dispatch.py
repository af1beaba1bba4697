#!/usr/bin/env python3
"""What does a page cost the engine's thread? By size of the memory and by density of the dirty bitmap."""
import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))
import bench as b  # noqa: E402
import chart  # noqa: E402
import stats  # noqa: E402

METHOD = """\
perf/engine_pages.c: source and destination in one process over the in-process loop channel, with puts that vanish, so that
nothing but the engine limits; memory is address space only. A pass over a made-up dirty log is timed by the processor clock
of the engine's thread, from one dirty log sync to the next: epochs, runs, batches, handing over, waiting, the count at the
end. ns per page that is dirty, median (lowest–highest) of the rounds; for the sparse bitmap also per page of the memory, since
there the walk over the bitmap is what costs. The first round warms up and does not count."""


def report(bench, sizes, channels, passes):
    patterns = list(dict.fromkeys(one["pattern"] for one in passes))

    def per_page(size, pattern, of="dirty"):
        values = [one["cpu-ns"] / one[of] for one in passes
                  if one["pages"] * 4096 == size and one["pattern"] == pattern]
        return [stats.median(values), min(values), max(values)]

    def cell(values):
        return "{:.2f} ({:.2f}–{:.2f})".format(*values)

    bench.table(f"ns of the engine's thread per dirty page, {channels} channels",
                ["memory", *patterns, f"{patterns[-1]}, per page of memory"],
                [[stats.bytes_text(size), *(cell(per_page(size, pattern)) for pattern in patterns),
                  cell(per_page(size, patterns[-1], "pages"))] for size in sizes])
    worst = max(per_page(size, patterns[0])[0] for size in sizes)
    bench.target("ns per page, all pages, worst size", f"{worst:.2f}", "< 5", worst < 5)
    bench.finish(chart.lines(bench.title, "ns per dirty page", "memory", [stats.bytes_text(size) for size in sizes],
                             {pattern: [per_page(size, pattern)[0] for size in sizes] for pattern in patterns},
                             line=(5, "5 ns")),
                 parameters={"sizes": sizes, "channels": channels}, samples=passes)


def run():
    parser = b.arguments(__doc__)
    parser.add_argument("--sizes", metavar="LIST", help="of memory (1G,16G,128G,1T)")
    parser.add_argument("--channels", type=int, default=2, metavar="N", help="(2)")
    options = parser.parse_args()
    sizes = [b.size(word) for word in (options.sizes or ("64M,1G" if options.quick else "1G,16G,128G,1T")).split(",")]
    with b.Bench("dispatch", "The engine, per page", METHOD, options) as bench:
        passes = []
        for size in sizes:
            bench.say(stats.bytes_text(size))
            rounds = 1 if options.quick else options.rounds + 1
            done = json.loads(bench.run(bench.program("perf/engine_pages"), size, options.channels, rounds, limit=1800))
            per_round = len(done["passes"]) // rounds
            passes += done["passes"][0 if options.quick else per_round:]
        report(bench, sizes, options.channels, passes)


if __name__ == "__main__":
    sys.exit(b.main(run))
