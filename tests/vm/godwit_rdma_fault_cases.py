"""godwit over RDMA on real queue pairs, and what goes wrong: one line on each side, in time, the guest safe at the
source, and nothing of the device's left.

Over TCP every one of these cases has its counterpart in tests/cli.
"""
import signal
import sys
import time

import wire
from migration import (SAFE, demo, failed, leaves_no_verbs_object, recv, report, send, start_send, verbs_objects,
                       succeeded, verified)

NOBODY = 65534
SLOW = ["--ram", "64M", "--dirty-rate", "5M", "--json", "--max-bandwidth", "2M"]  # runs as long as one likes


def start_slow_pair(t, receiving=(), sending=()):
    """A rate-limited migration in the middle of its first pass: (recv, send)."""
    receiver, uri = recv(t.machine, "--once", "--json", *receiving)
    sender = start_send(t.machine, uri, *SLOW, *sending)
    sender.wait_for("active")
    return receiver, sender


def ended(job, begin, limit):
    """Its Answer, and after how many seconds."""
    answer = job.wait(limit)
    return answer, time.monotonic() - begin


def one_side_expects_tcp(t):
    objects = verbs_objects(t.machine)
    for there, here in (("tcp", "rdma"), ("rdma", "tcp")):
        job, uri = recv(t.machine, "--once", "--discard", uri=f"{there}:{t.machine.address}:0")
        sent = send(t.machine, (uri or "").replace(there, here), "--ram", "16M")
        got = job.wait(60)
        name = f"send {here}: to recv {there}:"
        t.expect(failed(sent, "transport mismatch", SAFE), f"{name} the source says so", sent)
        t.expect(failed(got, "transport mismatch"), f"{name} the destination says so", got)
    leaves_no_verbs_object(t, t.machine, objects, "afterwards")


def nothing_listens(t):
    sent = send(t.machine, f"rdma:{t.machine.address}:9", "--ram", "16M", "--connect-timeout", "1s")
    t.expect(failed(sent, "refused", SAFE), "neither for TCP nor for RDMA", sent)


# Listens at a port, says which, and connects whoever comes with the second argument's port, or answers as a stranger.
DOOR = """
import socket, sys, threading
def pump(come, go):
    while data := come.recv(65536):
        go.sendall(data)
    go.shutdown(socket.SHUT_WR)
listener = socket.create_server((sys.argv[1], 0))
print("door", listener.getsockname()[1], flush=True)
while True:
    end = listener.accept()[0]
    if len(sys.argv) < 3:
        end.sendall(b"HTTP/1.1 400 Bad Request" + 40 * b"\\r\\n")
        end.close()
        continue
    behind = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    for ends in ((end, behind), (behind, end)):
        threading.Thread(target=pump, args=ends, daemon=True).start()
"""


def start_door(machine, *words):
    """(its Job, the address at which there is TCP only)."""
    job = machine.spawn([sys.executable, "-c", DOOR, machine.address, *words])
    return job, f"rdma:{machine.address}:{job.wait_for(r'door ([0-9]+)')[1]}"


def tcp_without_rdma_behind_it(t):
    objects = verbs_objects(t.machine)
    door, uri = start_door(t.machine)
    sent = send(t.machine, uri, "--ram", "16M")
    t.expect(failed(sent, "does not speak godwit's protocol", SAFE), "a stranger: the source says so", sent)
    door.kill()
    receiver, real = recv(t.machine, "--once", "--discard")
    door, uri = start_door(t.machine, real.rpartition(":")[2])
    sent = send(t.machine, uri, "--ram", "16M", "--connect-timeout", "2s")
    t.expect(failed(sent, "data channel ", "nothing listens there for RDMA", SAFE),
             "a tunnel for TCP alone: the source says so", sent)
    got = receiver.wait(60)
    t.expect(failed(got, "nothing listens there for RDMA"), "and the destination is told", got)
    door.kill()
    leaves_no_verbs_object(t, t.machine, objects, "afterwards")


def a_small_backlog_is_warned_of(t):
    was = t.machine.check("cat /proc/sys/net/rdma_ucm/max_backlog").strip()
    t.machine.check("echo 7 >/proc/sys/net/rdma_ucm/max_backlog")
    receiver, uri = recv(t.machine, "--once", "--discard")
    sent = send(t.machine, uri, "--ram", "16M", "--channels", "4")
    got = receiver.wait(60)
    words = "godwit: warning: net.rdma_ucm.max_backlog is 7: "
    t.expect(words in got.err and "sysctl net.rdma_ucm.max_backlog=" in got.err, "it is named, with the remedy", got)
    t.expect(succeeded(sent, got), "and it is no error", sent, got)
    t.machine.check(f"echo {was} >/proc/sys/net/rdma_ucm/max_backlog")


def an_address_without_a_device(t):
    t.machine.check("ip address add 10.12.0.1/24 dev v1")
    job, uri = recv(t.machine, "--once", uri="rdma:10.12.0.1:0")
    got = job.wait(60)
    t.expect(uri is None and got.code == 2 and "no RDMA device of this host" in got.err, "recv", got)
    t.machine.check("ip address del 10.12.0.1/24 dev v1")
    job, uri = recv(t.machine, "--once", "--discard", uri="rdma:127.0.0.1:0")  # the kernel allows it
    sent = send(t.machine, uri, "--ram", "16M")
    got = job.wait(60)
    t.expect(failed(sent, "no RDMA device", SAFE) and failed(got, "no RDMA device"), "lo", sent, got)
    sent = send(t.machine, "rdma:203.0.113.1:4444", "--ram", "16M", "--connect-timeout", "2s")
    t.expect(failed(sent, SAFE), "send, no route", sent)
    sent = send(t.machine, "rdma:no-such-host.invalid:4444", "--ram", "16M", "--connect-timeout", "2s")
    t.expect(failed(sent, "no-such-host", SAFE), "send, unknown host", sent)


def too_little_memory_may_be_locked(t):
    """The rings of a channel take 3.3 MiB; the guest's memory is what does not fit."""
    small, large = 12 << 20, 1 << 30
    objects = verbs_objects(t.machine)
    for name, here, there in (("the source", small, large), ("the destination", large, small)):
        job, uri = recv(t.machine, "--once", "--discard", user=NOBODY, memlock=there)
        sent = send(t.machine, uri, "--ram", "64M", "--channels", "1", user=NOBODY, memlock=here)
        got = job.wait(60)
        t.expect(failed(sent, "RLIMIT_MEMLOCK", SAFE), f"{name}: the source says so", sent)
        t.expect(failed(got, "RLIMIT_MEMLOCK"), f"{name}: the destination says so", got)
    leaves_no_verbs_object(t, t.machine, objects, "afterwards")
    answer = demo(t.machine, "--ram", "16M", "--dirty-rate", "5M", "--channels", "2", user=NOBODY, memlock=64 << 20)
    t.expect(verified(answer), "enough for a user without privileges", answer)


def either_side_is_killed(t):
    objects = verbs_objects(t.machine)
    receiver, sender = start_slow_pair(t)
    begin = time.monotonic()
    receiver.signal(signal.SIGKILL)
    sent, took = ended(sender, begin, 60)
    t.expect(failed(sent, SAFE) and took < 20, f"the destination: noticed after {took:.1f} s", sent)
    receiver, sender = start_slow_pair(t)
    begin = time.monotonic()
    sender.signal(signal.SIGKILL)
    got, took = ended(receiver, begin, 60)
    t.expect(failed(got) and took < 20, f"the source: noticed after {took:.1f} s", got)
    leaves_no_verbs_object(t, t.machine, objects, "afterwards")


def either_side_freezes(t):
    """Its kernel goes on acknowledging, so that the device sees nothing."""
    objects = verbs_objects(t.machine)
    timeouts = ["--peer-timeout", "4s", "--heartbeat-interval", "200ms"]
    for name in ("destination", "source"):
        receiver, sender = start_slow_pair(t, timeouts, timeouts)
        frozen, other = (receiver, sender) if name == "destination" else (sender, receiver)
        begin = time.monotonic()
        frozen.signal(signal.SIGSTOP)
        answer, took = ended(other, begin, 60)
        frozen.signal(signal.SIGCONT)
        words = [SAFE] if name == "destination" else []
        t.expect(failed(answer, *words) and 3 < took < 20, f"the {name}: noticed after {took:.1f} s", answer)
        late = frozen.wait(60)
        t.expect(failed(late), f"the {name}: fails when it goes on", late)
    leaves_no_verbs_object(t, t.machine, objects, "afterwards")


def either_side_is_interrupted(t):
    objects = verbs_objects(t.machine)
    for name in ("destination", "source"):
        receiver, sender = start_slow_pair(t)
        begin = time.monotonic()
        (receiver if name == "destination" else sender).signal(signal.SIGINT)
        sent, took = ended(sender, begin, 60)
        got = receiver.wait(60)
        first = got if name == "destination" else sent
        t.expect(failed(sent, SAFE) and failed(got) and took < 20, f"the {name}: after {took:.1f} s", sent, got)
        t.expect(report(first).get("status") == "cancelled", f"the {name}: cancelled", first)
    leaves_no_verbs_object(t, t.machine, objects, "afterwards")


def the_device_is_removed(t):
    objects = verbs_objects(t.machine)
    receiver, sender = start_slow_pair(t)
    begin = time.monotonic()
    removal = wire.remove_device(t.machine)
    sent, took = ended(sender, begin, 60)
    got = receiver.wait(60)
    # Both ends are on it: either may hear first that the other's end of the connection is gone.
    t.expect(failed(sent, SAFE) and took < 20, f"the source ends after {took:.1f} s", sent)
    t.expect(failed(got), "the destination ends", got)
    answer = removal.wait(60)
    t.expect(answer.code == 0, "and the device goes", answer)
    wire.add_device(t.machine, "v0")
    t.machine.wait_until("rdma link show rxe0/1 | grep -q ACTIVE", 60)
    answer = demo(t.machine, "--ram", "16M", "--dirty-rate", "0")
    t.expect(verified(answer), "with a new one it works again", answer)
    leaves_no_verbs_object(t, t.machine, objects, "afterwards")


CASES = [one_side_expects_tcp, nothing_listens, tcp_without_rdma_behind_it, a_small_backlog_is_warned_of,
         an_address_without_a_device, too_little_memory_may_be_locked, either_side_is_killed, either_side_freezes,
         either_side_is_interrupted, the_device_is_removed]
