"""Two machines on a wire: they reach each other, and what is done to the wire is felt."""
import re
import time

import verbs
import wire

MOMENT = 3  # seconds in which a pingpong through a hole gets nowhere; through a whole wire it is over


def sees_the_other(t):
    for machine in (t.a, t.b):
        answer = machine.run("ibv_devinfo -d rxe0")
        t.expect("PORT_ACTIVE" in answer.out and re.search(r"active_mtu:\s+4096", answer.out),
                 f"{machine.name}: rxe0 is active, path MTU 4096", answer)
    for server, client in ((t.b, t.a), (t.a, t.b)):
        answers = verbs.rping(server, client)
        t.expect(all(answer.code == 0 for answer in answers), f"rping from {client.name} to {server.name}", *answers)
    t.expect(t.a.run("uname -n").out + t.b.run("uname -n").out == "A\nB\n", "two machines, not one")


def dropped(machine):
    return int(re.search(r"dropped (\d+)", machine.check("tc -s qdisc show dev eth0 root"))[1])


def survives_loss(t):
    """Who is done first takes its queue pair along, and with it perhaps the acknowledgement that the other waits for:
    for ever, with the retries of this program. So one that gets through all its rounds is enough."""
    wire.lose(t.a, 3)
    jobs = verbs.start_pingpong(t.b, t.a, 50)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and all(job.code is None for job in jobs):
        jobs[0].wait_for("iters", 1)
    answers = [job.wait(5) for job in jobs]
    lost = dropped(t.a)
    wire.heal(t.a)
    t.expect(any(answer.code == 0 and "iters" in answer.out for answer in answers), "of 3 % of the frames", *answers)
    t.expect(lost > 0, f"of which there were {lost}")


def delays(t):
    wire.lose(t.a, 0, delay=20)
    begin = time.monotonic()
    answers = verbs.pingpong(t.b, t.a, count=50)
    took = time.monotonic() - begin
    wire.heal(t.a)
    t.expect(all(answer.code == 0 for answer in answers) and took >= 50 * 0.02, f"50 rounds in {took:.1f} s", *answers)


def stuck(t, what):
    """A pingpong that gets nowhere, as long as it is watched."""
    jobs = verbs.start_pingpong(t.b, t.a, 5)
    t.expect(jobs[1].wait_for("remote address", 60), f"{what}: TCP still goes through", jobs[1].out, jobs[1].err)
    jobs[1].wait_for("iters", MOMENT)
    t.expect(jobs[0].code is None and jobs[1].code is None, f"{what}: nothing else does", jobs[1].out)
    return jobs


def sees_a_black_hole(t):
    wire.swallow(t.b)
    jobs = stuck(t, "swallowed")
    wire.heal(t.b)
    answers = [job.wait(120) for job in jobs]
    t.expect(all(answer.code == 0 for answer in answers), "healed: it comes to its end", *answers)


def loses_its_link(t):
    wire.unplug(t.a)
    answer = t.a.run("rdma link show rxe0/1")
    t.expect("state DOWN" in answer.out, "down", answer)
    wire.plug(t.a)
    t.a.wait_until("rdma link show rxe0/1 | grep -q ACTIVE", 60)
    answers = verbs.pingpong(t.b, t.a, count=5)
    t.expect(all(answer.code == 0 for answer in answers), "up, and works", *answers)


def loses_its_device(t):
    jobs = verbs.start_pingpong(t.b, t.a, 1000000)
    jobs[1].wait_for("remote address", 60)
    removal = wire.remove_device(t.b)
    t.expect(removal.wait_for("never said", 1) is None and removal.code is None, "but not while it is used")
    for job in jobs:
        job.kill()
        job.wait()
    answer = removal.wait(60)
    t.expect(answer.code == 0 and "rxe0" not in t.b.run("ibv_devices").out, "then it is gone", answer)
    wire.add_device(t.b)
    answers = verbs.pingpong(t.b, t.a, count=5)
    t.expect(all(answer.code == 0 for answer in answers), "and gets a new one", *answers)


CASES = [sees_the_other, survives_loss, delays, sees_a_black_hole, loses_its_link, loses_its_device]
