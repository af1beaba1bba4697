#!/usr/bin/env python3
"""What does memory that does not exist cost? A large guest of which little is populated: time, and memory on both sides."""
import re
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
The guest's memory is a sparse file on a tmpfs with runs of random bytes spread evenly over it; it is made anew for every run,
because reading a hole of a tmpfs through a mapping fills it. Two channels over loopback; times as in `./run perf stream`;
destinations are not preallocated. godwit: `send --guest idle` from the file into a memfd. QEMU, file: the same file, shared,
into private anonymous memory, which can stay sparse. QEMU, anonymous: the populated part laid into private anonymous
memory by its loader, which is the best case for it: holes read as the kernel's one zero page. The target is against the same
file; the best case is in the table. Allocated, source: what the file grew by, or the resident part of the anonymous memory, less what was populated.
Allocated, destination: the resident part of the guest's memory, less what was populated. Page tables: VmPTE of the process.
All after the migration, both processes alive (the source of godwit is its file: it has ended)."""
RUNS = 64  # of populated memory


def vm(pid, field):
    return int(re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1]) * 1024


def resident(pid, least):
    """Resident bytes of the mappings that are no smaller than `least`: the guest's memory and nothing else."""
    total = 0
    for start, end, body in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) (.*?)^VmFlags", Path(f"/proc/{pid}/smaps").read_text(),
                                       re.M | re.S):
        if int(end, 16) - int(start, 16) >= least:
            total += int(re.search(r"^Rss:\s+(\d+)", body, re.M)[1]) * 1024
    return total


class Sparse:
    def __init__(self, bench, ram, populated):
        self.bench, self.ram, self.populated = bench, ram, populated
        self.memory, self.content = bench.scratch / "ram", bench.scratch / "content"
        b.fill(self.content, populated)

    def make(self):
        self.memory.unlink(missing_ok=True)
        run = self.populated // RUNS
        with open(self.memory, "wb") as out, open(self.content, "rb") as content:
            out.truncate(self.ram)
            for i in range(RUNS):
                out.seek(i * (self.ram // RUNS))
                out.write(content.read(run))

    def grown(self):
        return self.memory.stat().st_blocks * 512 - self.populated

    def godwit(self):
        self.make()
        sample = tool.migrate(self.bench, self.memory, 2, inspect=lambda pid: {
            "destination": resident(pid, self.ram) - self.populated, "destination-tables": vm(pid, "VmPTE")})
        sample["inspected"]["source"] = self.grown()
        self.memory.unlink()
        return sample

    def qemu(self, source, more, source_memory):
        def inspect(source_pid, destination_pid):
            return {"source": source_memory(source_pid), "source-tables": vm(source_pid, "VmPTE"),
                    "destination": resident(destination_pid, self.ram) - self.populated,
                    "destination-tables": vm(destination_pid, "VmPTE")}
        return qemu.migrate(self.bench, self.ram, source, "memory-backend-ram", qemu.multifd(2), more, inspect)

    def qemu_file(self):
        self.make()
        try:
            return self.qemu(f"memory-backend-file,share=on,mem-path={self.memory}", [], lambda pid: self.grown())
        finally:
            self.memory.unlink()

    def qemu_anonymous(self):
        loader = ["-device", f"loader,file={self.content},addr={b.MIB:#x},force-raw=on"]
        return self.qemu("memory-backend-ram", loader, lambda pid: resident(pid, self.ram) - self.populated)


def report(bench, sparse, samples):
    def seconds(who):
        return [sample["seconds"] for sample in samples[who]]

    def memory(who, what):
        values = [sample["inspected"][what] for sample in samples[who] if what in sample["inspected"]]
        return stats.bytes_text(max(0, stats.median(values))) if values else "–"

    medians = {who: stats.median(seconds(who)) for who in samples}
    compared = "QEMU, file" in samples
    bench.table(f"{stats.bytes_text(sparse.ram)}, of them {stats.bytes_text(sparse.populated)} populated",
                ["", "seconds, median (fastest–slowest)", "times godwit", "sent", "allocated for holes: source",
                 "destination", "page tables: source", "destination"],
                [[who, f"{medians[who]:.3f} ({stats.spread(seconds(who))})", f"{medians[who] / medians['godwit']:.0f}",
                  stats.bytes_text(stats.median([sample["transferred"] for sample in samples[who]])),
                  *(memory(who, what) for what in ["source", "destination", "source-tables", "destination-tables"])]
                 for who in samples])
    if compared:
        ratio = medians["QEMU, file"] / medians["godwit"]
        bench.target("godwit : QEMU, speed, the same file", f"{ratio:.0f}", ">= 50", ratio >= 50)
    holes = max(max(0, sample["inspected"][side]) for sample in samples["godwit"] for side in ["source", "destination"])
    bench.target("allocated for holes by godwit, both sides", stats.bytes_text(holes), "0 B", holes == 0)
    bench.finish(chart.bars(bench.title, "seconds", "", list(samples),
                            {"time, logarithmic": [[medians[who], min(seconds(who)), max(seconds(who))] for who in samples]},
                            logarithmic=True),
                 parameters={"ram": sparse.ram, "populated": sparse.populated,
                             "qemu": qemu.version(bench) if compared else None}, samples=samples)


def run():
    parser = b.arguments(__doc__)
    parser.add_argument("--ram", type=b.size, metavar="SIZE", help="memory of the guest (12G)")
    parser.add_argument("--populated", type=b.size, metavar="SIZE", help="of it (64M)")
    parser.add_argument("--no-qemu", action="store_true", help="leave QEMU out")
    options = parser.parse_args()
    if not options.no_qemu:
        b.need(qemu.BINARY)
    ram = options.ram or (b.GIB if options.quick else 12 * b.GIB)
    populated = options.populated or (8 * b.MIB if options.quick else 64 * b.MIB)
    with b.Bench("sparse", "A sparse guest", METHOD, options) as bench:
        if not options.no_qemu and b.available_memory() < ram * 5 // 4 + 4 * populated:
            raise b.Failed(f"QEMU fills the holes of a file: {stats.bytes_text(ram)} and a quarter must be free; see --ram")
        sparse = Sparse(bench, ram, populated)
        legs = {"godwit": sparse.godwit}
        if not options.no_qemu:
            legs.update({"QEMU, file": sparse.qemu_file, "QEMU, anonymous": sparse.qemu_anonymous})
        report(bench, sparse, bench.rounds(legs))


if __name__ == "__main__":
    sys.exit(b.main(run))
