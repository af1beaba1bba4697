"""What can go wrong, when, and what may come of it.

A fault is a function of a run (soak.Run) that does the damage. OUTCOMES is the promise (README.md): what a run with this
fault may end in, whatever the moment. The moment decides among them, and soak.judge() checks that it fits.
"""
import os
import signal
import subprocess
import time

from proxy import Hurt

# completed: both sides say so and the guest runs at the destination. failed: the guest runs on at the source. unknown:
# the source held the stopped guest until it was told to quit. there: the source is gone, the guest runs at the
# destination. nowhere: the source is gone, and its guest with it, before RUN.
PROGRESS = {"completed"}
EITHER = {"completed", "failed"}
SILENT = {"completed", "failed", "unknown"}
ORPHAN = {"completed", "there", "nowhere"}

PEER_TIMEOUT = 0.8  # seconds, as the runs are started with; run.peer_timeout is this for the transport


def nothing(run):
    pass


def kill_source(run):
    run.source.signal(signal.SIGKILL)


def kill_destination(run):
    run.destination.signal(signal.SIGKILL)


def freeze_source(run):
    run.source.signal(signal.SIGSTOP)
    run.source.frozen = True


def freeze_destination(run):
    run.destination.signal(signal.SIGSTOP)
    run.destination.frozen = True


def stun(process, run):
    process.signal(signal.SIGSTOP)
    time.sleep(run.random.choice((0.05, 0.3, 1.2, 2.5)) * run.peer_timeout * run.random.uniform(0.8, 1.2))
    process.signal(signal.SIGCONT)


def stun_source(run):
    stun(run.source, run)


def stun_destination(run):
    stun(run.destination, run)


def reset(run):
    run.proxy.reset_all()


def hole(run):
    run.proxy.silent = True
    run.proxy.silence_all()


def hole_heals(run):
    """What was on its way is lost, later connections succeed."""
    run.proxy.silent = True
    run.proxy.silence_all()
    time.sleep(run.random.uniform(0.1, 3) * run.peer_timeout)
    run.proxy.silent = False


def lost_connections(run):
    run.proxy.silence_all()


def stall(run):
    """What was on its way arrives late."""
    run.proxy.stalled = True
    time.sleep(run.random.choice((0.1, 0.5, 1.3, 3)) * run.peer_timeout)
    run.proxy.stalled = False


def channel_reset(run):
    channel = run.proxy.one_channel()
    if channel:
        channel.reset()


def channel_silent(run):
    channel = run.proxy.one_channel()
    if channel:
        channel.silent = True


def corrupt_hello(run):
    run.proxy.damage = ("hello", True)


def corrupt_answer(run):
    run.proxy.damage = ("answer", False)


def corrupt_from_source(run):
    run.proxy.damage = ("record", True)


def corrupt_from_destination(run):
    run.proxy.damage = ("record", False)


def corrupt_data(run):
    run.proxy.damage = ("head", True)


def drop(name, how):
    def lose(run):
        run.proxy.drop = (name, how)
    return lose


def lost_record(run):
    name = run.random.choice(("OFFER", "ACCEPT", "EPOCH_ACK", "STATE", "COMMIT", "LOADED", "HEARTBEAT"))
    run.proxy.drop = (name, run.random.choice(("one", "rest")))


def hurt(how, control=None, from_source=None):
    """Of a proxy that cannot read: the next piece of such a connection, of either where none is named."""
    def strike(run):
        channels = run.proxy.one_channel() is not None
        plane = control if control is not None else not channels or run.random.random() < 0.5
        side = from_source if from_source is not None else run.random.random() < 0.7
        run.proxy.hurt = Hurt(how, side, plane)
    return strike


def hurt_handshake(how):
    """At a byte of the first ones of any connection."""
    def strike(run):
        number = run.random.randint(0, run.options["multifd-channels"])
        run.proxy.hurt = Hurt(how, run.random.random() < 0.5, number=number, at=run.random.randrange(1500))
    return strike


def delay(run):
    run.proxy.jitter_ms, run.proxy.chunk_control, run.proxy.chunk_data = run.random.uniform(0.5, 4), 1 << 20, 1 << 16


def split(run):
    run.proxy.chunk_control, run.proxy.chunk_data = run.random.randint(1, 40), run.random.randint(700, 9000)


def cancel_source(run):
    run.source.signal(signal.SIGINT)


def cancel_destination(run):
    run.destination.signal(signal.SIGINT)


def link(run, state):
    subprocess.run(["ip", "-n", run.net.source, "link", "set", run.net.device, state], check=True)


def link_down(run):
    link(run, "down")


def link_flaps(run):
    link(run, "down")
    time.sleep(run.random.uniform(0.1, 2.5) * run.peer_timeout)
    link(run, "up")


def route_hole(run):
    there = run.random.random() < 0.5
    namespace, address = (run.net.source, run.net.there) if there else (run.net.destination, run.net.here)
    subprocess.run(["ip", "-n", namespace, "route", "add", "blackhole", f"{address}/32"], check=False)


def device_removed(run):
    run.transport.remove_device()


# name: (function, phases it is aimed at, outcomes allowed)
MIDDLE = ("setup", "active", "active", "device", "run", "running", "after")
FAULTS = {
    "none": (nothing, ("setup",), PROGRESS),
    "delay": (delay, ("start",), PROGRESS),
    "split": (split, ("start",), PROGRESS),
    "kill-source": (kill_source, MIDDLE, ORPHAN),
    "kill-destination": (kill_destination, MIDDLE, SILENT),
    "freeze-source": (freeze_source, MIDDLE, ORPHAN),
    "freeze-destination": (freeze_destination, MIDDLE, SILENT),
    "stun-source": (stun_source, MIDDLE, EITHER),
    "stun-destination": (stun_destination, MIDDLE, EITHER),
    "reset": (reset, MIDDLE, EITHER),
    "hole": (hole, MIDDLE, SILENT),
    "hole-heals": (hole_heals, MIDDLE, EITHER),
    "lost-connections": (lost_connections, MIDDLE, EITHER),
    "stall": (stall, MIDDLE, EITHER),
    "channel-reset": (channel_reset, ("active", "device"), EITHER),
    "channel-silent": (channel_silent, ("active", "device"), EITHER),
    "corrupt-hello": (corrupt_hello, ("start", "setup"), EITHER),
    "corrupt-answer": (corrupt_answer, ("start", "setup"), EITHER),
    "corrupt-from-source": (corrupt_from_source, MIDDLE, EITHER),
    "corrupt-from-destination": (corrupt_from_destination, MIDDLE, EITHER),
    "corrupt-data": (corrupt_data, ("setup", "active", "device"), EITHER),
    "lost-run": (drop("RUN", "rest"), ("start",), {"failed"}),
    "lost-run-only": (drop("RUN", "one"), ("start",), {"failed"}),
    "lost-running": (drop("RUNNING", "rest"), ("start",), PROGRESS),
    "lost-running-only": (drop("RUNNING", "one"), ("start",), PROGRESS),
    "lost-record": (lost_record, ("start",), EITHER),
    "cancel-source": (cancel_source, MIDDLE, EITHER),
    "cancel-destination": (cancel_destination, MIDDLE, EITHER),
    "no-memory": (nothing, ("start",), EITHER),
}
NETWORK_FAULTS = {
    "link-down": (link_down, MIDDLE, SILENT),
    "link-flaps": (link_flaps, MIDDLE, EITHER),
    "route-hole": (route_hole, MIDDLE, SILENT),
}
RDMA_FAULTS = {
    "device-removed": (device_removed, MIDDLE, EITHER),
    "no-memlock": (nothing, ("start",), EITHER),
}
READING = {"corrupt-hello", "corrupt-answer", "corrupt-from-source", "corrupt-from-destination", "corrupt-data",
           "lost-run", "lost-run-only", "lost-running", "lost-running-only", "lost-record"}  # for a proxy that can read
SEALED_FAULTS = {  # in their place inside TLS
    "handshake-damaged": (hurt_handshake("flip"), ("start",), EITHER),
    "handshake-cut": (hurt_handshake("reset"), ("start",), EITHER),
    "handshake-stops": (hurt_handshake("silent"), ("start",), EITHER),
    "corrupt-from-source": (hurt("flip", True, True), MIDDLE, EITHER),
    "corrupt-from-destination": (hurt("flip", True, False), MIDDLE, EITHER),
    "corrupt-data": (hurt("flip", False, True), ("active", "active", "device"), EITHER),
    "lost-bytes": (hurt("lose"), MIDDLE, EITHER),
    "repeated-bytes": (hurt("repeat"), MIDDLE, EITHER),
    "truncated": (hurt("end"), MIDDLE, EITHER),
}
NEEDING_KEYS = {"no-memlock"}  # by a user who may not read the keys
IN_DATA_CHANNELS = {"channel-reset", "channel-silent", "corrupt-data"}  # for a proxy that sees them
GONE_SOURCE = {"kill-source", "freeze-source"}
GONE_DESTINATION = {"kill-destination", "freeze-destination"}


def inside_tls(known, one_sided):
    """Of these faults, those that can be had inside TLS, and the ones that take the place of the others."""
    left = {name: how for name, how in known.items() if name not in READING | NEEDING_KEYS}
    added = {name: how for name, how in SEALED_FAULTS.items() if not (one_sided and name in IN_DATA_CHANNELS)}
    return {**left, **added}


def is_root():
    return os.geteuid() == 0
