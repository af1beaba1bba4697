"""The RDMA programs of Debian that show that a device works, between two machines or within one."""

PINGPONG = "stdbuf -oL ibv_rc_pingpong -d rxe0 -g 1 -s 65536"  # GID 1: RoCE v2 over IPv4
PINGPONG_PORT = 18515  # TCP, by which the two find each other


def start_rping(server, count):
    job = server.spawn(f"rping -s -C {count} -v")
    server.wait_until("rdma resource show cm_id | grep -q LISTEN", 60)
    return job


def rping(server, client, count=3, limit=120):
    """The answers of both ends."""
    job = start_rping(server, count)
    answer = client.run(f"rping -c -a {server.address} -C {count} -v", limit)
    return job.wait(60), answer


def start_pingpong(server, client, count):
    """The jobs of both ends."""
    job = server.spawn(f"{PINGPONG} -n {count}")
    server.wait_until(f"ss -Hltn sport = :{PINGPONG_PORT} | grep -q .", 60)
    return job, client.spawn(f"{PINGPONG} -n {count} {server.address}")


def pingpong(server, client, count=50, limit=120):
    first, second = start_pingpong(server, client, count)
    return first.wait(limit), second.wait(limit)
