"""godwit over RDMA on real queue pairs, both ends in one machine: what is to go well goes well, and through the device.

All sizes are small: two emulated processors move some 20 MiB/s.
"""
import re

import tap
from migration import (LIMIT, demo, leaves_no_verbs_object, packets_sent, recv, report, send, start_send, succeeded,
                       verbs_objects, verified)

MIB = 1 << 20
PATH_MTU = 4096
SLICE = 2 * MIB
RINGS = 2 * 4 * MIB  # of the two channels
REST = 48 * MIB      # the program, its threads and rings
SMALL = ["--ram", "32M", "--dirty-rate", "10M"]
FAULTS = ["drop-dirty-bit", "swap-pages", "stale-page", "lose-extent", "old-device-state"]


def sums(found):
    channels = found.get("channels", [])
    return [sum(channel[name] for channel in channels) for name in ("placed-bytes", "inline-bytes", "bytes")]


def moves_a_live_guest_through_the_device(t):
    for count in (1, 2, 4, 16):
        name = f"{count} channels"
        objects, packets = verbs_objects(t.machine), packets_sent(t.machine)
        answer = demo(t.machine, *SMALL, "--channels", count)
        packets = packets_sent(t.machine) - packets
        found = report(answer)
        channels = found.get("channels", [])
        placed, inline, sent = sums(found)
        t.expect(verified(answer), f"{name}: verified", answer)
        t.expect(len(channels) == count and all(channel["device"] == "rxe0" for channel in channels)
                 and len({channel["queue-pair"] for channel in channels}) == count,
                 f"{name}: each on a queue pair of its own", answer)
        t.expect(placed + inline == found.get("ram", {}).get("normal-bytes") and placed > inline,
                 f"{name}: {placed >> 10} KiB placed, {inline >> 10} KiB inline, which is every page", answer)
        t.expect(packets >= sent // PATH_MTU > 0, f"{name}: in {packets} packets of the device", answer)
        leaves_no_verbs_object(t, t.machine, objects, name)


def places_every_page_once_all_is_registered(t):
    answer = demo(t.machine, *SMALL, "--channels", "2", "--rdma-pin-all", "on")
    placed, inline, sent = sums(report(answer))
    t.expect(verified(answer) and inline == 0 and 32 * MIB <= placed, f"{placed} placed, {inline} inline", answer)
    t.expect(0 < sent - placed < placed // 256, f"and {sent - placed} bytes of heads", answer)
    t.expect(all(channel["placed-bytes"] > 0 for channel in report(answer).get("channels", [{"placed-bytes": 0}])),
             "on each channel", answer)


def finds_every_planted_fault(t):
    for fault in FAULTS:
        answer = demo(t.machine, *SMALL, "--x-fault", fault)
        found = report(answer)
        t.expect(answer.code == 1 and found.get("status") == "completed" and found.get("verified") is False, fault,
                 answer)
        placed, inline, _ = sums(found)
        t.expect(placed == 0 if fault == "stale-page" else placed > inline, f"{fault}: {placed} bytes placed", answer)


def transfer(t, source, dump, *words):
    """Sends a file as an idle guest's memory to a dump: the answers of both ends, and what of the dump differs."""
    job, uri = recv(t.machine, "--once", "--json", "--dump", dump)
    sent = send(t.machine, uri, "--guest", "idle", "--memory-from", source, "--json", *words)
    return job.wait(60), sent, t.machine.run(["cmp", source, dump])


def a_dump_is_the_file_that_was_sent(t):
    for size in (4096, 4 * MIB, 17 * MIB + 12288):
        t.machine.check(f"head -c {size} /dev/urandom >/tmp/source")
        got, sent, difference = transfer(t, "/tmp/source", "/tmp/dump", "--channels", "3")
        t.expect(succeeded(got, sent) and difference.code == 0, f"{size} bytes", got, sent, difference)
        t.expect(sum(sums(report(sent))[:2]) == size, f"{size} bytes: as many sent", sent)
    t.machine.check("rm /tmp/source /tmp/dump")


def watch_memory(t, program):
    """A job that looks, as long as there is one, at what the tool's process `send` or `recv` has pinned, and what of
    memory is its own: the source maps the guest twice, which counts twice in its resident set."""
    return t.machine.spawn(f"""
        pid=$(pgrep -f '/godwit {program} ' | head -n 1)
        while cat /proc/$pid/status /proc/$pid/smaps_rollup 2>/dev/null; do sleep 0.1; done |
            grep -E '^(VmPin|Pss):'""")


def largest(job, name):
    """In bytes."""
    return max((int(kib) << 10 for kib in re.findall(rf"{name}:\s+(\d+) kB", job.out)), default=0)


def a_sparse_guest_stays_sparse(t):
    populated, clusters = 64 * MIB, 16
    each = populated // clusters
    t.machine.check(f"""truncate -s 1G /tmp/source
        for i in $(seq 0 {clusters - 1}); do
            head -c {each} /dev/urandom | dd of=/tmp/source bs=1M seek=$((i * 64 + 3)) conv=notrunc status=none
        done""")
    job, uri = recv(t.machine, "--once", "--json", "--dump", "/tmp/dump")
    sender = start_send(t.machine, uri, "--guest", "idle", "--memory-from", "/tmp/source", "--json", "--max-bandwidth",
                        "16M", "--downtime-limit", "1")
    sender.wait_for("active")
    looks = {name: watch_memory(t, name) for name in ("send", "recv")}
    sent, got = sender.wait(LIMIT), job.wait(60)
    t.expect(succeeded(got, sent), "1 GiB with 64 MiB in 16 clusters", got, sent)
    t.expect(t.machine.run("cmp /tmp/source /tmp/dump").code == 0, "arrives")
    # Clusters begin in the middle of a slice, so each touches one more than it fills.
    bound = populated + clusters * SLICE
    for name, answer in (("send", sent), ("recv", got)):
        looks[name].wait(60)
        pinned = largest(looks[name], "VmPin")
        t.expect(populated <= report(answer).get("pinned-bytes", 0) <= bound,
                 f"{name}: pinned {report(answer).get('pinned-bytes')}, at most {bound}", answer)
        t.expect(populated <= pinned <= bound + RINGS, f"{name}: the kernel says {pinned}")
        resident = largest(looks[name], "Pss")
        t.expect(populated <= resident <= bound + REST, f"{name}: resident {resident}")
    blocks = int(t.machine.check("stat -c %b /tmp/dump")) * 512
    t.expect(populated <= blocks <= bound, f"the dump takes {blocks} bytes")
    t.machine.check("rm /tmp/source /tmp/dump")


def conforms_to_the_contract_of_channels(t):
    program = t.build / "tests" / "conformance" / "conformance_rdma_test"
    objects = verbs_objects(t.machine)
    answer = t.machine.run([program, "--tap=/tmp/tap", "--color=never"], 600,
                           env={"GODWIT_TEST_RDMA_HOST": t.machine.address})
    found = tap.parse(t.machine.run("cat /tmp/tap").out)
    bad = [case for case in found.cases if case.status == "failed"]
    passed = [case for case in found.cases if case.status == "passed"]
    t.expect(answer.code == 0 and len(passed) > 20 and not bad and not found.errors, f"{len(passed)} clauses of it",
             *found.errors, *(f"{case.name}: {line}" for case in bad for line in case.text), answer)
    leaves_no_verbs_object(t, t.machine, objects, "afterwards")


def a_hundred_migrations_leave_nothing_behind(t):
    objects = verbs_objects(t.machine)
    answer = t.machine.run([t.build / "tests" / "rdma" / "rdma-hundred", t.machine.address, "100"], 600)
    t.expect(answer.code == 0 and "109 migrations" in answer.out, "in one pair of processes", answer)
    leaves_no_verbs_object(t, t.machine, objects, "afterwards")


CASES = [moves_a_live_guest_through_the_device, places_every_page_once_all_is_registered, finds_every_planted_fault,
         a_dump_is_the_file_that_was_sent, a_sparse_guest_stays_sparse, conforms_to_the_contract_of_channels,
         a_hundred_migrations_leave_nothing_behind]
