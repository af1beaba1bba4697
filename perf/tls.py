#!/usr/bin/env python3
"""How fast does incompressible memory move under TLS? godwit, a bare GnuTLS copy of the memory, and QEMU's multifd."""
import filecmp
import json
import re
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))
import bench as b  # noqa: E402
import chart  # noqa: E402
import inside  # noqa: E402
import qemu  # noqa: E402
import stats  # noqa: E402
import tool  # noqa: E402

METHOD = """\
Every run reads all of one file of random bytes on a tmpfs, larger than any cache, that is mapped anew, so page tables
are empty, and sends it over loopback TCP to another process, into a memfd populated before the clock runs. All under
TLS use one set of certificates (`godwit pki`), shown and verified by both sides, one priority string, and one GnuTLS.
The time of each begins when all handshakes are done and pages may be sent, and ends when the destination has
everything. bare: perf/bare_tls.c, a thread per session on both sides, pieces of 2 MiB, gnutls_record_send of 16 KiB
out of the memory, gnutls_record_recv into it. godwit: `send --guest idle`, total-time less setup-time of the source,
which ends with the destination's word that it runs the guest. QEMU: a stopped guest, multifd, tls-creds-x509,
max-bandwidth out of the way, from the source's event `active` to the destination's event `completed`. All in turn, one
round after the other, each round beginning with another one; the first round warms up and does not count. Throughput
is the size of the memory by the median of the times, with the slowest and the fastest; ratios are those of medians.
Before the rounds, a small run of each form with GnuTLS's log of handshakes turned on shows what every connection
negotiated. Unless it is the same for all, nothing is measured."""

KERNEL_METHOD = """\
Kernel TLS: inside a virtual machine of tests/vm, Linux 6.1 on two processors that QEMU emulates (TCG), with GnuTLS
configured to allow it (`ktls = true`). All of its speed is the processors', so only ratios mean something, and they
are not those of real ones. godwit with `tls-kernel` on and off, timed as above. How many directions of connections the
kernel took over, in both processes together, is its own count (/proc/net/tls_stat)."""

WHO = {"bare": "bare GnuTLS", "godwit": "godwit", "QEMU": "QEMU multifd", "plain": "godwit, no TLS"}
TARGETS = {"bare": 0.95, "QEMU": 2.2}
SUITE = re.compile(r"Selected cipher suite: (\S+)")  # GnuTLS's log of handshakes, which is level 4
MACHINE_MEMORY = "2G"  # half of it is its tmpfs
GNUTLS_CONFIGURATION = "[global]\nktls = true\n"
KERNEL_COUNTS = Path("/proc/net/tls_stat")  # Documentation/networking/tls.rst, and there while tls.ko is


class Tls:
    """What is run, here or in the machine."""

    def __init__(self, bench, ram, cipher):
        self.bench, self.ram = bench, ram
        self.priority = f"NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+{cipher}"
        self.memory, self.small = bench.scratch / "ram", bench.scratch / "small"
        self.into, self.certificates = bench.scratch / "into", bench.scratch / "pki"
        bench.run(bench.program("cli/godwit"), "pki", self.certificates, "--host", "127.0.0.1,localhost")
        bench.say(f"writing {stats.bytes_text(ram)} of random bytes")
        b.fill(self.memory, ram)
        b.fill(self.small, min(ram, 64 * b.MIB))

    def leg(self, who, channels):
        return lambda: self.move(who, channels, self.memory)

    def move(self, who, channels, memory, into=None):
        """into: a file instead of a preallocated memfd; not for QEMU, whose firmware writes to its memory."""
        if who == "bare":
            destination = ["fresh", into] if into else ["prealloc"]
            return json.loads(self.bench.run(self.bench.program("perf/bare_tls"), self.certificates, self.priority,
                                             memory, channels, *destination))
        if who == "QEMU":
            return qemu.migrate(self.bench, memory.stat().st_size, f"memory-backend-file,share=on,mem-path={memory}",
                                "memory-backend-memfd,share=on,prealloc=on",
                                qemu.tls(qemu.multifd(channels), self.certificates, self.priority))
        tls = [] if who == "plain" else ["--tls-creds", self.certificates, "--tls-priority", self.priority]
        if who.startswith("tls-kernel"):
            tls += ["--tls-kernel", who.split()[1]]
        return tool.migrate(self.bench, memory, channels, [*tls, *(["--dump", into] if into else ["--prealloc"])], tls)

    def negotiated(self, who, channels):
        """The cipher suite of all connections of a small run, which is not measured; its copy is compared."""
        try:
            with self.bench.watched(GNUTLS_DEBUG_LEVEL="4") as processes:
                self.move(who, channels, self.small, self.into)
            suites = SUITE.findall("".join(line for process in processes for line in process.err))
            connections = channels if who == "bare" else channels + 1  # one for control
            if len(suites) < 2 * connections:  # both sides say it
                raise b.Failed(f"{who}: {len(suites)} ends of {connections} connections have a cipher")
            if len(set(suites)) > 1:
                raise b.Failed(f"{who}: its connections differ: {', '.join(sorted(set(suites)))}")
            if who != "QEMU" and not filecmp.cmp(self.small, self.into, shallow=False):
                raise b.Failed(f"{who} made a copy that differs")
            return suites[0]
        finally:
            for path in self.bench.scratch.glob("into*"):
                path.unlink()


def negotiated(tls, legs):
    """{leg: cipher suite} of those under TLS, which is one and the same."""
    found = {leg: tls.negotiated(*leg) for leg in legs if leg[0] != "plain"}
    if len(set(found.values())) > 1:
        raise b.Failed("these do not compare: " + "; ".join(f"{who} with {channels} channels has {suite}"
                                                            for (who, channels), suite in found.items()))
    return found


def rates(ram, runs):
    """Bytes per second: median, slowest, fastest."""
    seconds = [run["seconds"] for run in runs]
    return [ram / value for value in (stats.median(seconds), max(seconds), min(seconds))]


def text(values, unit):
    return "{:.2f} ({:.2f}–{:.2f})".format(*(value / unit for value in values))


def report_main(bench, ram, samples, suites):
    who = [name for name in WHO if any(leg[0] == name for leg in samples)]
    rate = {leg: rates(ram, runs) for leg, runs in samples.items()}
    channels = sorted({n for _, n in samples})
    rows = []
    for n in channels:
        ratios = {other: rate["godwit", n][0] / rate[other, n][0] for other in TARGETS if other in who}
        rows.append([n, *(text(rate[name, n], b.GIB) for name in who), *(f"{ratio:.2f}" for ratio in ratios.values())])
        for other, ratio in ratios.items():
            bench.target(f"godwit : {WHO[other]}, {n} channels", f"{ratio:.2f}", f">= {TARGETS[other]}",
                         ratio >= TARGETS[other])
    bench.table(f"GiB/s of {stats.bytes_text(ram)}, median (slowest–fastest)",
                ["channels", *(WHO[name] for name in who), *(f"godwit : {name}" for name in TARGETS if name in who)],
                rows)
    bench.table("Negotiated, by the log of GnuTLS", ["", "channels", "cipher suite"],
                [[WHO[name], n, suite] for (name, n), suite in suites.items()])
    return chart.bars(bench.title, "GiB/s", "channels", [f"{n} ch." for n in channels],
                      {WHO[name]: [[value / b.GIB for value in rate[name, n]] for n in channels] for name in who})


def report_kernel(bench, found):
    samples = {tuple(leg): runs for leg, runs in found["samples"]}
    rate = {leg: rates(found["ram"], runs) for leg, runs in samples.items()}
    rows = []
    for n in sorted({n for _, n in samples}):
        on, off = (("tls-kernel on", n), ("tls-kernel off", n))
        kernel = samples[on][0]["kernel"]
        rows.append([n, text(rate[on], b.MIB), f"{kernel['Tx']} / {kernel['Rx']}", text(rate[off], b.MIB),
                     f"{rate[on][0] / rate[off][0]:.2f}"])
    bench.table(f"Kernel TLS, apart: in a virtual machine, MiB/s of {stats.bytes_text(found['ram'])}, {found['suite']}",
                ["channels", "tls-kernel on", "taken over, send / receive", "tls-kernel off", "on : off"], rows)
    return [{"who": who, "channels": n, "inside": True, "runs": runs} for (who, n), runs in samples.items()]


def taken_over():
    """How many times the kernel was given the keys of a direction of a connection: {"Tx": n, "Rx": n}."""
    counts = KERNEL_COUNTS.read_text() if KERNEL_COUNTS.exists() else ""
    return {way: sum(map(int, re.findall(rf"^Tls{way}(?:Sw|Device)\s+(\d+)", counts, re.M))) for way in ["Tx", "Rx"]}


def counted(leg, wanted):
    """The same leg, with what the kernel took over; it must have, or not."""
    def run():
        before = taken_over()
        sample = leg()
        sample["kernel"] = {way: count - before[way] for way, count in taken_over().items()}
        if any(sample["kernel"].values()) != wanted:
            raise b.Failed(f"tls-kernel {'on' if wanted else 'off'}: the kernel has taken over {sample['kernel']}")
        return sample
    return run


def run_inside(options, channels, ram):
    with b.Bench("tls", "", KERNEL_METHOD, options) as bench:
        configuration = bench.scratch / "gnutls.conf"
        configuration.write_text(GNUTLS_CONFIGURATION)
        with bench.watched(GNUTLS_SYSTEM_PRIORITY_FILE=str(configuration)):
            tls = Tls(bench, ram, options.cipher)
            legs = [(f"tls-kernel {how}", n) for n in channels for how in ["on", "off"]]
            suites = negotiated(tls, legs)
            samples = bench.rounds({leg: counted(tls.leg(*leg), leg[0] == "tls-kernel on") for leg in legs})
        print(json.dumps({"machine": b.machine(), "ram": ram, "suite": next(iter(suites.values())),
                          "samples": list(samples.items())}))


def run():
    parser = b.arguments(__doc__)
    parser.add_argument("--ram", type=b.size, metavar="SIZE", help="memory of the guest (2G)")
    parser.add_argument("--channels", type=b.numbers, metavar="LIST", help="(2,4)")
    parser.add_argument("--cipher", default="AES-256-GCM", metavar="NAME",
                        help="as in a priority string of GnuTLS (AES-256-GCM, which is its own first choice)")
    parser.add_argument("--no-qemu", action="store_true", help="leave QEMU out")
    parser.add_argument("--kernel", action="store_true", help="kernel TLS as well, in a virtual machine")
    parser.add_argument("--inside", action="store_true",
                        help="measure kernel TLS here, and print what was found as JSON")
    options = parser.parse_args()
    channels = options.channels or ([2] if options.quick else [2, 4])
    if options.inside:
        return run_inside(options, channels, 16 * b.MIB if options.quick else 128 * b.MIB)
    if not options.no_qemu:
        b.need(qemu.BINARY)
    ram = options.ram or (64 * b.MIB if options.quick else 2 * b.GIB)
    method = f"{METHOD}\n\n{KERNEL_METHOD}" if options.kernel else METHOD
    with b.Bench("tls", "Incompressible memory under TLS", method, options) as bench:
        if b.available_memory() < 3 * ram:
            raise b.Failed(f"needs {stats.bytes_text(3 * ram)} of free memory, for a file and its copy; see --ram")
        kernel = inside.measure(bench, MACHINE_MEMORY, rdma=False) if options.kernel else None
        tls = Tls(bench, ram, options.cipher)
        legs = [(who, n) for n in channels for who in WHO if who != "QEMU" or not options.no_qemu]
        suites = negotiated(tls, legs)
        samples = bench.rounds({leg: tls.leg(*leg) for leg in legs})
        picture = report_main(bench, ram, samples, suites)
        found = [{"who": who, "channels": n, "suite": suites.get((who, n)), "runs": runs}
                 for (who, n), runs in samples.items()]
        found += report_kernel(bench, kernel) if kernel else []
        bench.finish(picture, samples=found,
                     parameters={"ram": ram, "priority": tls.priority, "inside": kernel and kernel["machine"],
                                 "qemu": None if options.no_qemu else qemu.version(bench)})


if __name__ == "__main__":
    sys.exit(b.main(run))
