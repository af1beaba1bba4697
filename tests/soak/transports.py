"""Where a destination of the soak listens, where its source connects, and how the proxy gets between them.

    transport = BY_NAME["tcp"]()
    transport.check()                           # Missing: not here
    uri = transport.listens_at(run)             # for recv; what it prints is given to insert()
    proxy, uri = transport.insert(run, printed) # for send
    transport.remove(run)                       # afterwards, with whatever the run's fault needs to be mended
    transport.problems(run)                     # sentences: what the run left behind, or did not use

patience: every time of a run is so many times that of TCP on this host. moving: the proxy's event from which on pages
move; moving_sealed: the same inside TLS. alone: no two runs at a time. short: faults of the short form, None for all.
one_sided: the data channels are queue pairs.
"""
import re
import socket
import subprocess
import time
from pathlib import Path

import faults
from proxy import Proxy


class Missing(Exception):
    """This transport cannot be had here, and why."""


def make_tcp(target, source=None):
    return lambda: socket.create_connection(target, timeout=5, source_address=source)


def make_unix(path):
    def connect():
        end = socket.socket(socket.AF_UNIX)
        end.connect(path)
        return end
    return connect


def listen_unix(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    return listener


class Tcp:
    name, patience, moving, moving_sealed, alone, short = "tcp", 1, "data", "data", False, None
    one_sided = False
    faults, networks = faults.FAULTS, True

    def check(self):
        pass

    def listens_at(self, run):
        return "tcp:127.0.0.1:0"

    def insert(self, run, uri):
        port = int(uri.rpartition(":")[2])
        host = run.net.there if run.net else "127.0.0.1"
        proxy = Proxy(make_tcp(("127.0.0.1", port)), lambda: socket.create_server((host, 0), backlog=64), run.seed,
                      run.hold, run.net and run.net.destination, run.tls is not None)
        return proxy, f"tcp:{host}:{proxy.address[1]}"

    def remove(self, run):
        pass

    def problems(self, run):
        return []


class Unix(Tcp):
    name, networks = "unix", False

    def listens_at(self, run):
        return f"unix:{run.folder}/d"

    def insert(self, run, uri):
        path = f"{run.folder}/p"
        proxy = Proxy(make_unix(f"{run.folder}/d"), lambda: listen_unix(path), run.seed, run.hold, sealed=run.tls is not None)
        return proxy, f"unix:{path}"


class Rdma(Tcp):
    """In the virtual machine of tests/vm, on its rxe0. The proxy sees the control connection, not the queue pairs.

    Both have one host and port, so a proxy cannot have an address of its own. It listens at another port of the same
    host, and tc rewrites the port of what goes over lo to the destination's and comes back, save for what the proxy
    itself sends, which comes from another address. Rejected: a listener of a host of its own beside the destination's
    (the queue pairs would follow it there), address translation by nftables (one more package and its modules).
    """
    name, patience, moving, moving_sealed, alone, networks = "rdma", 5, "KEY", "hello", True, False
    one_sided = True
    faults = {name: how for name, how in {**faults.FAULTS, **faults.RDMA_FAULTS}.items()
              if name not in faults.IN_DATA_CHANNELS}
    short = ("none", "kill-source", "kill-destination", "freeze-destination", "stun-source", "reset", "device-removed",
             "no-memlock", "cancel-source")
    HOST, PROXY, DEVICE, NETDEV = "10.11.0.1", "127.0.0.1", "rxe0", "v0"

    def __init__(self):
        self.removal = None

    def check(self):
        if not Path("/sys/class/infiniband", self.DEVICE).exists():
            raise Missing(f"there is no {self.DEVICE}: ./run soak --transport rdma boots a machine that has it")
        command("tc qdisc replace dev lo clsact")
        self.objects = verbs_objects()

    def listens_at(self, run):
        return f"rdma:{self.HOST}:0"

    def insert(self, run, uri):
        port = int(uri.rpartition(":")[2])
        proxy = Proxy(make_tcp((self.HOST, port), (self.PROXY, 0)),
                      lambda: socket.create_server((self.HOST, 0), backlog=64), run.seed, run.hold,
                      sealed=run.tls is not None)
        ours = proxy.address[1]
        rewrite = f"tc filter add dev lo egress protocol ip flower ip_proto tcp src_ip {self.HOST} dst_ip {self.HOST}"
        command(f"{rewrite} dst_port {port} action pedit ex munge tcp dport set {ours}")
        command(f"{rewrite} src_port {ours} action pedit ex munge tcp sport set {port}")
        return proxy, uri

    def remove(self, run):
        command("tc filter del dev lo egress")
        if self.removal is None:
            return
        removal, self.removal = self.removal, None
        if removal.wait(30) != 0:
            raise RuntimeError(f"rdma link delete: status {removal.returncode}")
        command(f"rdma link add {self.DEVICE} type rxe netdev {self.NETDEV}")
        wait_until(lambda: "state ACTIVE" in output("rdma link show"), "the new device is not active")

    def remove_device(self):
        """Returns at once: the kernel waits until nobody uses it."""
        self.removal = subprocess.Popen(["rdma", "link", "delete", self.DEVICE])

    def problems(self, run):
        said = []
        if not wait_until(lambda: verbs_objects() == self.objects):
            said.append(f"verbs objects are left: {verbs_objects()}, before it was {self.objects}")
        if run.source_code == 0:
            channels = run.source.report.get("channels", [])
            if {channel["device"] for channel in channels} != {self.DEVICE}:
                said.append(f"not every channel is on {self.DEVICE}: {channels}")
            if run.guest["pattern"] != "zero" and not sum(channel["placed-bytes"] for channel in channels):
                said.append("no page was put into the destination's memory")
        return said


def command(words):
    done = subprocess.run(words.split(), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{words}: {done.stderr.strip()}")


def output(words):
    return subprocess.run(words.split(), capture_output=True, text=True).stdout


def verbs_objects():
    return dict(re.findall(r"(\w+) (\d+)", output("rdma resource show")))


def wait_until(condition, failure=None, seconds=30):
    """What a process that ended had may take the kernel a moment to take apart."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            if failure:
                raise RuntimeError(failure)
            return False
        time.sleep(0.05)
    return True


BY_NAME = {kind.name: kind for kind in (Tcp, Unix, Rdma)}
