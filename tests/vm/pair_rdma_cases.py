"""godwit over RDMA between two machines: what of a wire one machine does not have. A sends, B receives."""
import re
import time

import wire
from migration import (SAFE, errors, failed, leaves_no_verbs_object, recv, report, send, start_send, succeeded,
                       verbs_objects)

GUEST = ["--ram", "16M", "--dirty-rate", "2M", "--json"]
SLOW = ["--ram", "64M", "--dirty-rate", "2M", "--json", "--max-bandwidth", "2M"]  # runs as long as one likes
PEER_TIMEOUT = 10
NO_ANSWER = "no answer from the peer's device"
# Retries of the queue pair end after 3.8 s, silence after PEER_TIMEOUT; the rest is for slow processors.
IN_TIME = 30


def migrates(t, name, *words):
    receiver, uri = recv(t.b, "--once", "--guest", "process", "--check", "--json")
    sent = send(t.a, uri, *GUEST, *words)
    got = receiver.wait(120)
    t.expect(succeeded(sent, got) and report(got).get("check", {}).get("passed", True), name, sent, got)
    placed = sum(channel["placed-bytes"] for channel in report(sent).get("channels", []))
    t.expect(placed >= 16 << 20, f"{name}: {placed} bytes placed", sent)
    return sent, got


def a_guest_moves_to_the_other_machine(t):
    objects = {machine: verbs_objects(machine) for machine in (t.a, t.b)}
    sent, got = migrates(t, "and runs on there, its memory right")
    t.expect(all(channel["device"] == "rxe0" for channel in report(sent).get("channels", [{"device": None}])),
             "through rxe0", sent)
    migrates(t, "over four queue pairs", "--channels", "4")
    for machine in (t.a, t.b):
        leaves_no_verbs_object(t, machine, objects[machine], machine.name)


def a_guest_moves_over_a_bad_wire(t):
    for machine in (t.a, t.b):
        wire.lose(machine, 1, delay=5)
    migrates(t, "1 % lost in each direction, and 5 ms late")
    for machine in (t.a, t.b):
        wire.heal(machine)


def start_slow_pair(t, *words):
    """A rate-limited migration in the middle of its first pass: (recv, send)."""
    timeouts = ["--peer-timeout", f"{PEER_TIMEOUT}s"]
    receiver, uri = recv(t.b, "--once", "--json", *timeouts)
    sender = start_send(t.a, uri, *SLOW, *timeouts, *words)
    sender.wait_for("active")
    return receiver, sender


def breaks(t, name, harm, mend, *words):
    """What becomes of a migration to which that is done: the answers of both ends, A's with all the words. mend: for
    the next."""
    objects = {machine: verbs_objects(machine) for machine in (t.a, t.b)}
    receiver, sender = start_slow_pair(t)
    begin = time.monotonic()
    harm()
    sent = sender.wait(120)
    took = time.monotonic() - begin
    got = receiver.wait(120)
    both = time.monotonic() - begin
    mend()
    t.expect(failed(sent, SAFE, *words) and took < IN_TIME, f"{name}: the source says so after {took:.1f} s", sent, got)
    t.expect(failed(got) and both < 2 * IN_TIME, f"{name}: the destination ends after {both:.1f} s", got, sent)
    for machine in (t.a, t.b):
        leaves_no_verbs_object(t, machine, objects[machine], f"{name}: {machine.name}")
    return sent, got


def a_black_hole_is_noticed_by_the_device(t):
    breaks(t, "on the way there", lambda: wire.swallow(t.b), lambda: wire.heal(t.b), NO_ANSWER)
    breaks(t, "on the way back", lambda: wire.swallow(t.a), lambda: wire.heal(t.a), NO_ANSWER)


def a_narrow_hop_is_named(t):
    """Small messages pass, so the connections are made; pages do not."""
    wire.narrow(t.b, 2000)
    receiver, uri = recv(t.b, "--once", "--json")
    begin = time.monotonic()
    sent = send(t.a, uri, *GUEST)
    took = time.monotonic() - begin
    got = receiver.wait(120)
    wire.heal(t.b)
    t.expect(failed(sent, NO_ANSWER, "smaller MTU", SAFE) and took < IN_TIME, f"the source says so after {took:.1f} s",
             sent, got)
    t.expect(failed(got), "the destination ends", got)


def a_wire_that_is_cut_is_noticed(t):
    """Neither side can tell the other why it ends. Not by taking the interface down: see README.md."""
    breaks(t, "cut", lambda: wire.cut(t.a), lambda: wire.heal(t.a))


def replace_device(t, machine, removal):
    answer = removal.wait(60)
    t.expect(answer.code == 0, f"{machine.name}: the device goes, as nobody uses it any more", answer)
    wire.add_device(machine)
    machine.wait_until("rdma link show rxe0/1 | grep -q ACTIVE", 60)


def a_device_that_is_removed_is_named(t):
    removals = []
    for name, machine in (("the source's", t.a), ("the destination's", t.b)):
        sent, got = breaks(t, name, lambda: removals.append(wire.remove_device(machine)),
                           lambda: replace_device(t, machine, removals[-1]))
        # A source whose senders wait for their bandwidth is not in its channels, and hears of it from the other side.
        lines = errors(got) if machine is t.b else errors(sent) + errors(got)
        words = "removed" if machine is t.b else "removed|its side of the connection broke"
        t.expect(any(re.search(words, line) for line in lines), f"{name} is named", sent, got)
    migrates(t, "with new ones it works again")


CASES = [a_guest_moves_to_the_other_machine, a_guest_moves_over_a_bad_wire, a_black_hole_is_noticed_by_the_device,
         a_narrow_hop_is_named, a_wire_that_is_cut_is_noticed, a_device_that_is_removed_is_named]
