#!/usr/bin/env python3
"""How much of a real link is used? Two network namespaces, a shaped link between them, godwit against iperf3."""
import json
import os
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))
import bench as b  # noqa: E402
import chart  # noqa: E402
import stats  # noqa: E402
import tool  # noqa: E402

METHOD = """\
Two network namespaces joined by a veth pair; towards the destination a token bucket (tc tbf, a burst of 2 ms and 128 KiB,
latency 20 ms) makes the link, the way back is free. godwit: perf/folded_guest.c to `recv --discard`, bytes of pages by the time
from the first moment at which pages may be sent until the destination runs the guest. iperf3: as many streams and bytes, its
own figure of what the receiver got per second. In turn, each round beginning with the other; the first round warms up and
does not count. Median (lowest–highest)."""


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise b.Missing(f"no link can be made: ip {' '.join(words)}: {done.stderr.strip()}")


class Link:
    """Gone when the benchmark is: with a namespace goes its end of the pair, and with that the other."""

    ADDRESSES = ["198.18.0.1", "198.18.0.2"]  # for benchmarks, RFC 2544

    def __init__(self, bench, rate):
        self.names = [f"godwit-perf-{os.getpid()}-{rate // 10 ** 6}-{side}" for side in ["source", "destination"]]
        for name in self.names:
            ip("netns", "add", name)
            bench.at_exit(lambda name=name: subprocess.run(["ip", "netns", "del", name], capture_output=True))
        ip("-n", self.names[0], "link", "add", "name", "veth0", "type", "veth", "peer", "name", "veth0", "netns",
           self.names[1])
        for name, address in zip(self.names, self.ADDRESSES):
            ip("-n", name, "address", "add", f"{address}/30", "dev", "veth0")
            ip("-n", name, "link", "set", "veth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        burst = rate // 8 // 500 + (128 << 10)
        shape = subprocess.run(["tc", "-n", self.names[0], "qdisc", "add", "dev", "veth0", "root", "tbf", "rate", f"{rate}bit",
                                "burst", str(burst), "latency", "20ms"], capture_output=True, text=True)
        if shape.returncode != 0:
            raise b.Missing(f"tc tbf: {shape.stderr.strip()}")

    def source(self):
        return ["ip", "netns", "exec", self.names[0]]

    def destination(self):
        return ["ip", "netns", "exec", self.names[1]]


def godwit(bench, link, amount, channels):
    destination, uri = tool.listen(bench, "--once", "--discard", prefix=link.destination(), uri=f"tcp:{link.ADDRESSES[1]}:0")
    try:
        report = json.loads(bench.run(*link.source(), bench.program("perf/folded_guest"), uri, amount,
                                      f"multifd-channels={channels}"))
        destination.end()
        return {"bits": report["normal-bytes"] * 8 / report["seconds"], "seconds": report["seconds"]}
    finally:
        bench.stop(destination)


def iperf3(bench, link, amount, channels):
    server = bench.start(*link.destination(), "iperf3", "--server", "--one-off", "--forceflush", "--bind", link.ADDRESSES[1])
    try:
        server.wait_for("listening", server.out)
        report = json.loads(bench.run(*link.source(), "iperf3", "--client", link.ADDRESSES[1], "--json", "--parallel", channels,
                                      "--bytes", amount))
        return {"bits": report["end"]["sum_received"]["bits_per_second"],
                "seconds": report["end"]["sum_received"]["seconds"], "bytes": report["end"]["sum_received"]["bytes"]}
    finally:
        bench.stop(server)


def report(bench, rates, seconds, channels, samples):
    rows, ratios, series = [], {}, {"godwit": [], "iperf3": []}
    for rate in rates:
        row = []
        for who in series:
            bits = [sample["bits"] / 1e9 for sample in samples[who, rate]]
            series[who].append([stats.median(bits), min(bits), max(bits)])
            row.append("{:.3f} ({:.3f}–{:.3f})".format(*series[who][-1]))
        ratios[rate] = series["godwit"][-1][0] / series["iperf3"][-1][0]
        rows.append([f"{rate / 1e9:g}", *row, f"{ratios[rate] * 100:.1f} %"])
    bench.table(f"Gbit/s, {channels} channels or streams, {seconds:g} s of the link's rate",
                ["link, Gbit/s", "godwit", "iperf3", "godwit : iperf3"], rows)
    for rate in rates:
        if rate == 10 ** 9:
            bench.target("godwit : iperf3 at 1 Gbit/s", f"{ratios[rate] * 100:.1f} %", ">= 98 %", ratios[rate] >= 0.98)
    bench.finish(chart.bars(bench.title, "Gbit/s", "link", [f"{rate / 1e9:g} Gbit/s" for rate in rates], series),
                 parameters={"rates": rates, "seconds": seconds, "channels": channels},
                 samples=[{"who": who, "rate": rate, "runs": runs} for (who, rate), runs in samples.items()])


def run():
    parser = b.arguments(__doc__)
    parser.add_argument("--rates", type=b.numbers, metavar="LIST", help="of the link in Mbit/s (1000,10000)")
    parser.add_argument("--seconds", type=float, help="how long the link takes for a run (8)")
    parser.add_argument("--channels", type=int, default=2, metavar="N", help="(2)")
    options = parser.parse_args()
    b.need("ip", "tc", "iperf3")
    if os.geteuid() != 0:
        raise b.Missing("network namespaces need root")
    rates = [rate * 10 ** 6 for rate in options.rates or [1000, 10000]]
    seconds = options.seconds or (0.2 if options.quick else 8)
    with b.Bench("netns", "A shaped link", METHOD, options) as bench:
        legs = {}
        for rate in rates:
            link, amount = Link(bench, rate), int(rate / 8 * seconds)
            for who in [godwit, iperf3]:
                legs[who.__name__, rate] = lambda who=who, link=link, amount=amount: who(bench, link, amount, options.channels)
        report(bench, rates, seconds, options.channels, bench.rounds(legs))


if __name__ == "__main__":
    sys.exit(b.main(run))
