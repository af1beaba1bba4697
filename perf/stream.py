#!/usr/bin/env python3
"""How fast does incompressible memory move over TCP? godwit, a bare-socket copy of the same memory, and QEMU's multifd."""
import filecmp
import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))
import bench as b  # noqa: E402
import chart  # noqa: E402
import qemu  # noqa: E402
import stats  # noqa: E402
import tool  # noqa: E402

METHOD = """\
Every run reads all of one file of random bytes on a tmpfs, larger than any cache, that is mapped anew, so page tables are
empty, and sends it over loopback TCP to another process. Destinations: a memfd populated before the clock runs
(preallocated), a memfd that is not, a shared file on the tmpfs that is not. The time of each begins when everything is
connected and prepared and pages may be sent, and ends when the destination has everything. bare: perf/bare_copy.c, a thread
per stream on both sides, pieces of 2 MiB, no zero detection. godwit: `send --guest idle`, total-time less setup-time of the
source, which ends with the destination's word that it runs the guest. QEMU: a stopped guest, multifd, max-bandwidth out of
the way, from the source's event `active` to the destination's event `completed`. All in turn, one round after the other,
each round beginning with another one; the first round warms up and does not count. Throughput is the size of the memory by the
median of the times, with the slowest and the fastest; ratios are those of medians."""

VARIANTS = ["preallocated", "not preallocated", "shared file"]
QEMU_DESTINATION = {"preallocated": "memory-backend-memfd,share=on,prealloc=on",
                    "not preallocated": "memory-backend-memfd,share=on,prealloc=off",
                    "shared file": "memory-backend-file,share=on,prealloc=off,mem-path={into}"}
TARGETS = {("bare", 1): 0.95, ("bare", 2): 0.95, ("bare", 4): 0.95, ("bare", 8): 0.95, ("QEMU", 2): 1.7, ("QEMU", 4): 1.5}


class Stream:
    def __init__(self, bench, ram):
        self.bench, self.ram = bench, ram
        self.memory, self.into = bench.scratch / "ram", bench.scratch / "into"
        self.compared = set()

    def leg(self, who, channels, variant):
        def run():
            self.into.unlink(missing_ok=True)
            try:
                sample = getattr(self, who.lower())(channels, variant)
                self.compare(who, variant)
                return sample
            finally:
                self.into.unlink(missing_ok=True)
        return run

    def compare(self, who, variant):
        """Once, where there is a file to look at; QEMU's firmware may write to its memory."""
        if variant != "shared file" or who == "QEMU" or who in self.compared:
            return
        self.compared.add(who)
        if not filecmp.cmp(self.memory, self.into, shallow=False):
            raise b.Failed(f"{who} made a copy that differs")

    def bare(self, channels, variant):
        into = [self.into] if variant == "shared file" else []
        return json.loads(self.bench.run(self.bench.program("perf/bare_copy"), self.memory, channels,
                                         "prealloc" if variant == "preallocated" else "fresh", *into))

    def godwit(self, channels, variant):
        receive = {"preallocated": ["--prealloc"], "shared file": ["--dump", self.into]}.get(variant, [])
        return tool.migrate(self.bench, self.memory, channels, receive)

    def qemu(self, channels, variant):
        return qemu.migrate(self.bench, self.ram, f"memory-backend-file,share=on,mem-path={self.memory}",
                            QEMU_DESTINATION[variant].format(into=self.into), qemu.multifd(channels))


def report(bench, ram, legs, samples):
    def rate(key):  # bytes per second: median, slowest, fastest
        seconds = [sample["seconds"] for sample in samples[key]]
        return [ram / value for value in (stats.median(seconds), max(seconds), min(seconds))]

    def ratio(who, channels, variant):
        other = (who, channels, variant)
        return rate(("godwit", channels, variant))[0] / rate(other)[0] if other in samples else None

    rows = []
    places = sorted({(VARIANTS.index(variant), channels) for _, channels, variant in legs})
    for index, channels in places:
        variant, row = VARIANTS[index], []
        for who in ["bare", "godwit", "QEMU"]:
            key = (who, channels, variant)
            row.append("{:.2f} ({:.2f}–{:.2f})".format(*(v / b.GIB for v in rate(key))) if key in samples else "–")
        row += [f"{r:.2f}" if r else "–" for r in (ratio(who, channels, variant) for who in ["bare", "QEMU"])]
        rows.append([variant, channels, *row])
    bench.table(f"GiB/s of {stats.bytes_text(ram)}, median (slowest–fastest)",
                ["destination", "channels", "bare sockets", "godwit", "QEMU multifd", "godwit : bare", "godwit : QEMU"], rows)
    for (who, channels), least in TARGETS.items():
        found = ratio(who, channels, "preallocated")
        if found:
            bench.target(f"godwit : {who}, preallocated, {channels} channels", f"{found:.2f}", f">= {least}", found >= least)
    names = [f"{channels} ch." if not index else f"{VARIANTS[index]}, {channels}" for index, channels in places]
    series = {who: [[v / b.GIB for v in rate(key)] if (key := (who, channels, VARIANTS[index])) in samples else None
                    for index, channels in places] for who in ["bare", "godwit", "QEMU"]}
    bench.finish(chart.bars(bench.title, "GiB/s", "channels, destination preallocated; then the other destinations",
                            names, series),
                 parameters={"ram": ram, "qemu": qemu.version(bench) if any(who == "QEMU" for who, *_ in legs) else None},
                 samples=[{"who": who, "channels": channels, "destination": variant, "runs": samples[who, channels, variant]}
                          for who, channels, variant in legs])


def run():
    parser = b.arguments(__doc__)
    parser.add_argument("--ram", type=b.size, metavar="SIZE", help="memory of the guest (2G)")
    parser.add_argument("--channels", type=b.numbers, metavar="LIST", help="(1,2,4,8)")
    parser.add_argument("--others", type=int, default=2, metavar="N",
                        help="channels for the destinations that are not preallocated (2)")
    parser.add_argument("--no-qemu", action="store_true", help="leave QEMU out")
    options = parser.parse_args()
    if not options.no_qemu:
        b.need(qemu.BINARY)
    ram = options.ram or (64 * b.MIB if options.quick else 2 * b.GIB)
    channels = options.channels or ([2] if options.quick else [1, 2, 4, 8])
    with b.Bench("stream", "Incompressible memory over TCP", METHOD, options) as bench:
        if b.available_memory() < 3 * ram:
            raise b.Failed(f"needs {stats.bytes_text(3 * ram)} of free memory, for a file and its copies; see --ram")
        stream = Stream(bench, ram)
        bench.say(f"writing {stats.bytes_text(ram)} of random bytes")
        b.fill(stream.memory, ram)
        who = ["bare", "godwit"] + ([] if options.no_qemu else ["QEMU"])
        legs = [(w, n, "preallocated") for n in channels for w in who]
        legs += [(w, options.others, variant) for variant in VARIANTS[1:] for w in who]
        samples = bench.rounds({leg: stream.leg(*leg) for leg in legs})
        report(bench, ram, legs, samples)


if __name__ == "__main__":
    sys.exit(b.main(run))
