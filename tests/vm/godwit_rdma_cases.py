"""godwit over RDMA on real queue pairs, both ends in one machine: what is to go well goes well, and through the device.

All sizes are small: two emulated processors move some 20 MiB/s.
"""
from migration import demo, leaves_no_verbs_object, packets_sent, report, verbs_objects, verified

MIB = 1 << 20
PATH_MTU = 4096
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
        t.expect(answer.code == 1 and found.get("status") == "completed" and found.get("verified") is False, fault, answer)


CASES = [moves_a_live_guest_through_the_device, places_every_page_once_all_is_registered, finds_every_planted_fault]
