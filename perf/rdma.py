#!/usr/bin/env python3
"""How fast does memory move over RDMA? godwit, ib_write_bw and QEMU's RDMA migration, in a virtual machine with soft-RoCE."""
import filecmp
import json
import os
import random
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))
import bench as b  # noqa: E402
import chart  # noqa: E402
import inside  # noqa: E402
import perftest  # noqa: E402
import qemu  # noqa: E402
import stats  # noqa: E402
import tool  # noqa: E402

METHOD = """\
In a virtual machine of tests/vm: Linux 6.1, soft-RoCE, two processors that QEMU emulates (TCG). All of its speed is the
processors', and about a tenth of a host's; only ratios mean something. Both ends of every connection are rxe0 of that
machine, path MTU 4096. The guest is one file of random bytes on a tmpfs, mapped anew by each run; it goes into a fresh file
on the tmpfs. ib_write_bw: bytes by the time from the first to the last packet that the device counted, over as many queue
pairs, in messages of 1 MiB with 4 MiB under way on each, as godwit puts them (rdma/queue.h); its buffer is one message that
is sent again and again. Bulk: godwit with `rdma-pin-all`, total-time less setup-time of the source, so memory is registered
before and the end is the destination's word that it runs the guest. Whole: total-time, connecting and registering included;
pinned is with `rdma-pin-all` on both sides, dynamic, which is how godwit comes, without. QEMU: a stopped guest, one queue pair (it has no more), from its
source's event `setup` to the destination's event `completed`. Every second page: a new copy, for each run, of a file with
pages of random bytes and holes in turn, so that each page is a write of its own; the bytes are those of the random pages, and
so they are for ib_write_bw with messages of 4096 in chains of 16, 128 under way.
User CPU: of both processes, less that of the same migration of a guest of 4 MiB, which is what starting programs costs, per
GiB; in a machine of its own, both processes on a processor whose kernel notes every change between user and kernel mode
(nohz_full). With ticks alone it would divide a thread's time by what they hit, and a tick within soft-RoCE's tasklets, which
run in the thread that posts, hits neither, so most of what soft-RoCE does would be shared out as if half were ours. All in turn, one round after the other, each round
beginning with another one; the first round warms up and does not count. Other figures are medians, with the slowest and the
fastest; ratios are those of medians."""

ADDRESS, GID = "10.11.0.1", 1  # of rxe0, and RoCE v2 over IPv4 (tests/vm)
MEMORY = "4G"  # of the machine: half of it is its tmpfs
QEMU_PORT = 4400
SMALL = 4 * b.MIB
PATIENT = ["--peer-timeout", "30s"]  # docs/tuning.md, soft-RoCE
PINNED = ["--rdma-pin-all", "on"]
ALONE = ["taskset", "--cpu-list", "1"]  # the processor of nohz_full
QEMUS = [("QEMU dynamic", 1), ("QEMU pinned", 1)]
TARGETS = {"bulk": 0.95, "every second page": 0.95, "QEMU dynamic": 1.6, "QEMU pinned": 1.2}


class Inside:
    """In the machine: what is run."""

    def __init__(self, bench, ram):
        self.bench, self.ram = bench, ram
        self.memory, self.small, self.gaps = (bench.scratch / name for name in ["ram", "small", "gaps"])
        self.into = bench.scratch / "into"
        self.compared = set()
        b.fill(self.memory, ram)
        b.fill(self.small, SMALL)
        with open(self.gaps, "wb") as out:
            for _ in range(ram // 8192):
                out.write(random.randbytes(4096))
                out.seek(4096, os.SEEK_CUR)
            out.truncate(ram)

    def godwit(self, memory, uri, channels, how=(), prefix=()):
        def run():
            try:
                sample = tool.migrate(self.bench, memory, channels, ["--dump", self.into, *PATIENT, *how], [*PATIENT, *how],
                                      uri=uri, prefix=prefix)
                if (memory, uri) not in self.compared:
                    self.compared.add((memory, uri))
                    if not filecmp.cmp(memory, self.into, shallow=False):
                        raise b.Failed(f"godwit made a copy of {memory.name} over {uri} that differs")
                return sample
            finally:
                for path in self.bench.scratch.glob("into*"):
                    path.unlink()
        return run

    def every_second_page(self):
        guest = self.bench.scratch / "gaps-copy"

        def run():
            try:
                self.bench.run("cp", self.gaps, guest)  # holes and all: registering makes pages of them
                return self.godwit(guest, f"rdma:{ADDRESS}:0", 1, PINNED)()
            finally:
                guest.unlink(missing_ok=True)
        return run

    def qemu(self, pinned):
        def run():
            try:
                return qemu.migrate(self.bench, self.ram, f"memory-backend-file,share=on,mem-path={self.memory}",
                                    f"memory-backend-file,share=on,mem-path={self.into}",
                                    qemu.rdma(f"rdma:{ADDRESS}:{QEMU_PORT}", pinned))
            finally:
                self.into.unlink(missing_ok=True)
        return run

    def legs(self, channels, with_qemu):
        rdma, tcp = f"rdma:{ADDRESS}:0", f"tcp:{ADDRESS}:0"
        legs = {}
        for n in channels:
            legs["ib_write_bw", n] = lambda n=n: perftest.write_bw(self.bench, ADDRESS, GID, b.MIB, self.ram, n, 4)
            legs["pinned", n] = self.godwit(self.memory, rdma, n, PINNED)
            legs["dynamic", n] = self.godwit(self.memory, rdma, n)
            legs["tcp", n] = self.godwit(self.memory, tcp, n)
        if with_qemu:
            legs["QEMU pinned", 1] = self.qemu(True)
            legs["QEMU dynamic", 1] = self.qemu(False)
        legs["ib_write_bw, 4 KiB", 1] = lambda: perftest.write_bw(self.bench, ADDRESS, GID, 4096, self.ram // 2, chain=16)
        legs["every second page", 1] = self.every_second_page()
        return legs

    def user_legs(self):
        return {(f"user, {name}, {scheme}", 1): self.godwit(memory, f"{scheme}:{ADDRESS}:0", 1, prefix=ALONE)
                for name, memory in [("small", self.small), ("whole", self.memory)] for scheme in ["rdma", "tcp"]}


class Results:
    """Of each leg: the time, or the rate in bytes per second, as median, slowest and fastest."""

    def __init__(self, ram, samples):
        self.ram, self.samples = ram, samples

    def times(self, leg, what):
        values = [sample[what] for sample in self.samples[leg]]
        return [stats.median(values), max(values), min(values)]

    def rates(self, leg):
        """Whatever lies between a start and an end: bulk for godwit."""
        return [self.bytes(leg) / seconds for seconds in self.times(leg, "seconds")]

    def bytes(self, leg):
        half = leg[0] == "every second page"
        return self.samples[leg][0].get("bytes", self.ram // 2 if half else self.ram)

    def whole(self, leg):
        """Setup included."""
        return self.times(leg, "whole-seconds" if leg[0].startswith("QEMU") else "total-seconds")

    def user(self, transport):
        """Seconds per GiB."""
        whole, small = (self.times((f"user, {name}, {transport}", 1), "user-seconds")[0] for name in ["whole", "small"])
        return (whole - small) / (self.ram - SMALL) * b.GIB


def mib(rates):
    return "{:.1f} ({:.1f}–{:.1f})".format(*(rate / b.MIB for rate in rates))


def seconds_text(times):
    return "{:.2f} ({:.2f}–{:.2f})".format(*times)


def report_bulk(bench, results, channels):
    rows = []
    pairs = [(f"{n}", ("ib_write_bw", n), ("pinned", n), "bulk") for n in channels]
    pairs.append(("1, every second page", ("ib_write_bw, 4 KiB", 1), ("every second page", 1), "every second page"))
    for name, bare, ours, what in pairs:
        ratio = results.rates(ours)[0] / results.rates(bare)[0]
        setup = [whole - bulk for whole, bulk in zip(results.whole(ours), results.times(ours, "seconds"))][0]
        included = results.bytes(ours) / results.whole(ours)[0]
        rows.append([name, mib(results.rates(bare)), mib(results.rates(ours)), f"{ratio:.2f}", f"{setup:.2f}",
                     f"{included / b.MIB:.1f}"])
        text = f"bulk, {name} channel{'s' if name > '1' else ''}" if what == "bulk" else what
        bench.target(f"godwit : ib_write_bw, {text}", f"{ratio:.2f}", f">= {TARGETS[what]}", ratio >= TARGETS[what])
    bench.table("Bulk, MiB/s: median (slowest–fastest)",
                ["channels", "ib_write_bw", "godwit", "godwit : ib_write_bw", "its setup, s", "with setup, MiB/s"], rows)


def report_whole(bench, results, channels):
    def row(name, n, leg):
        times = [f"{results.whole(theirs)[0] / results.whole(leg)[0]:.2f}" if theirs in results.samples and leg != theirs else "–"
                 for theirs in QEMUS]
        return [name, n, seconds_text(results.whole(leg)), *times]

    rows = [row(*leg, leg) for leg in QEMUS if leg in results.samples]
    for kind in ["dynamic", "pinned", "tcp"]:
        rows += [row(f"godwit {kind}", n, (kind, n)) for n in channels]
    for theirs in QEMUS:
        for n in channels if theirs in results.samples else []:
            ratio = results.whole(theirs)[0] / results.whole(("dynamic", n))[0]
            bench.target(f"godwit : {theirs[0]}, whole, {n} channel{'s' if n > 1 else ''}", f"{ratio:.2f}",
                         f">= {TARGETS[theirs[0]]}", ratio >= TARGETS[theirs[0]])
    bench.table("The whole migration, seconds: median (slowest–fastest)",
                ["", "channels", "seconds", "times the speed of QEMU dynamic", "and pinned"], rows)


def report_user(bench, results):
    user = {transport: results.user(transport) for transport in ["rdma", "tcp"]}
    bench.table("User CPU of both processes, seconds per GiB, one channel", ["transport", "seconds"],
                [[transport, f"{seconds:.2f}"] for transport, seconds in user.items()])
    bench.target("user CPU per GiB, rdma : tcp", f"{user['rdma'] / user['tcp']:.2f}", "< 1", user["rdma"] < user["tcp"])


def report(bench, ram, channels, found):
    samples = {tuple(leg): runs for leg, runs in found["samples"]}
    results = Results(ram, samples)
    report_bulk(bench, results, channels)
    report_whole(bench, results, channels)
    report_user(bench, results)
    names = [f"{n} ch." for n in channels] + ["every second page"]
    bars = {"ib_write_bw": [("ib_write_bw", n) for n in channels] + [("ib_write_bw, 4 KiB", 1)],
            "godwit": [("pinned", n) for n in channels] + [("every second page", 1)]}
    bench.finish(chart.bars(bench.title, "MiB/s", "channels, bulk; and every second page, one channel", names,
                            {who: [[rate / b.MIB for rate in results.rates(leg)] for leg in legs]
                             for who, legs in bars.items()}),
                 parameters={"ram": ram, "qemu": found["qemu"], "inside": found["machine"]},
                 samples=[{"what": who, "channels": n, "runs": runs} for (who, n), runs in samples.items()])


def run_inside(options, ram, channels):
    with b.Bench("rdma", "", METHOD, options) as bench:
        version = None if options.no_qemu else qemu.version(bench)
        legs = Inside(bench, ram)
        samples = bench.rounds(legs.user_legs() if options.user else legs.legs(channels, not options.no_qemu))
        print(json.dumps({"machine": b.machine(), "qemu": version, "samples": list(samples.items())}))


def run():
    parser = b.arguments(__doc__)
    parser.add_argument("--ram", type=b.size, metavar="SIZE", help="memory of the guest (256M)")
    parser.add_argument("--channels", type=b.numbers, metavar="LIST", help="(1,2,4)")
    parser.add_argument("--no-qemu", action="store_true", help="leave QEMU's migration out")
    parser.add_argument("--inside", action="store_true", help="measure here, and print what was found as JSON")
    parser.add_argument("--user", action="store_true", help="with --inside: user CPU alone")
    options = parser.parse_args()
    b.need(perftest.BINARY, qemu.BINARY)
    ram = options.ram or (16 * b.MIB if options.quick else 256 * b.MIB)
    channels = options.channels or ([1] if options.quick else [1, 2, 4])
    if options.inside:
        return run_inside(options, ram, channels)
    with b.Bench("rdma", "Memory over RDMA, in software", METHOD, options) as bench:
        found = inside.measure(bench, MEMORY)
        found["samples"] += inside.measure(bench, MEMORY, more=["--user"], kernel_words=["nohz_full=1"])["samples"]
        report(bench, ram, channels, found)


if __name__ == "__main__":
    sys.exit(b.main(run))
