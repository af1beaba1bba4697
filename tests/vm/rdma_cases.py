"""soft-RoCE within one machine: both ends on v0's address."""
import re

import verbs

NOBODY = 65534


def has_a_device(t):
    answer = t.machine.run("ibv_devinfo -d rxe0")
    t.expect(re.search(r"state:\s+PORT_ACTIVE", answer.out), "rxe0 is active", answer)
    t.expect(re.search(r"active_mtu:\s+4096", answer.out), "with a path MTU of 4096", answer)
    answer = t.machine.run("ibv_devices", user=NOBODY)
    t.expect("rxe0" in answer.out, "for users without privileges too", answer)


def moves_bytes(t):
    answers = verbs.pingpong(t.machine, t.machine)
    t.expect(all(answer.code == 0 for answer in answers), "ibv_rc_pingpong", *answers)
    answers = verbs.rping(t.machine, t.machine)
    t.expect(all(answer.code == 0 for answer in answers) and answers[1].out.count("ping data") == 3, "rping", *answers)
    server = t.machine.spawn("ib_write_bw -d rxe0 -x 1 -s 65536 -n 100")
    t.machine.wait_until("ss -Hltn sport = :18515 | grep -q .", 60)
    answer = t.machine.run(f"ib_write_bw -d rxe0 -x 1 -s 65536 -n 100 {t.machine.address}", 120)
    t.expect(answer.code == 0 and server.wait(60).code == 0, "ib_write_bw", answer)


def refuses_to_lock_more_than_allowed(t):
    words = f"{verbs.PINGPONG} -s 1048576 -n 1"
    answer = t.machine.run(words, limit=60, user=NOBODY, memlock=64 << 10)
    t.expect(answer.code not in (0, None) and "register MR" in answer.err, "64 KiB for 1 MiB", answer)
    job = t.machine.spawn(words, user=NOBODY, memlock="unlimited")
    t.expect(job.wait_for("local address", 60) or job.code is None, "unlimited", job.out, job.err)
    job.kill()
    job.wait()


CASES = [has_a_device, moves_bytes, refuses_to_lock_more_than_allowed]
