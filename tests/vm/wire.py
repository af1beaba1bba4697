"""Two machines, A and B, on one wire, each with its rxe0: what one machine cannot show, since the frames of a
connection within it never leave the device. And what can be done to a wire.

    with Pair() as (a, b):
        server = b.spawn("rping -s")
        faults.lose(a, 1)
        a.run(f"rping -c -a {b.address}")
"""
import socket

from machine import Machine

NAMES, ADDRESSES = ("A", "B"), ("10.11.0.1", "10.11.0.2")
ROCE_PORT = 4791  # UDP


class Pair:
    def __init__(self, **how):
        """how: as of Machine, for both; 1 GiB of memory and one processor each unless it says otherwise."""
        how = {"memory": "1G", "cpus": 1, **how}
        self._ends = socket.socketpair()
        self.machines = [Machine(name=name, address=address, wire=end, **how)
                         for name, address, end in zip(NAMES, ADDRESSES, self._ends)]

    def __enter__(self):
        try:
            for machine in self.machines:
                machine.launch()
            for end in self._ends:
                end.close()  # QEMU has them; an end of ours would keep the wire up when a machine is gone
            for machine in self.machines:
                machine.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self.machines

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        for machine in self.machines:
            machine.stop()
        for end in self._ends:
            end.close()


def lose(machine, percent, delay=0):
    """A share of the frames that leave the machine is lost, and the others come `delay` ms late, until heal()."""
    words = f"loss {percent}% limit 100000" + (f" delay {delay}ms" if delay else "")
    machine.check(f"tc qdisc replace dev eth0 root netem {words}")


def swallow(machine):
    """A black hole for RDMA alone: what comes to its RoCE port is dropped unseen until heal(). TCP goes on."""
    machine.check("tc qdisc replace dev eth0 clsact && tc filter add dev eth0 ingress protocol ip prio 1 "
                  f"flower ip_proto udp dst_port {ROCE_PORT} action drop")


def narrow(machine, size):
    """A hop with a smaller MTU than both ends, for RDMA alone: longer packets that come to its RoCE port are dropped
    unseen until heal()."""
    machine.check("tc qdisc replace dev eth0 clsact && tc filter add dev eth0 ingress protocol ip prio 1 "
                  f"flower ip_proto udp dst_port {ROCE_PORT} action police rate 10gbit burst 10m mtu {size} drop")


def cut(machine):
    """Nothing passes in either direction, and the link stays up, as behind a switch, until heal()."""
    machine.check("tc qdisc replace dev eth0 root netem loss 100% && tc qdisc replace dev eth0 clsact && "
                  "tc filter add dev eth0 ingress matchall action drop")


def unplug(machine):
    """The link goes down. Its addresses stay, and plug() brings it back."""
    machine.check("ip link set eth0 down")


def plug(machine):
    machine.check("ip link set eth0 up")


def remove_device(machine):
    """As when a network card is pulled out or its driver reset. The Job: rxe has who uses the device told
    (IBV_EVENT_DEVICE_FATAL, RDMA_CM_EVENT_DEVICE_REMOVAL), and waits until nobody does. add_device() makes a new
    one."""
    return machine.spawn("rdma link delete rxe0")


def add_device(machine, netdev="eth0"):
    machine.check(f"rdma link add rxe0 type rxe netdev {netdev}")


def heal(machine):
    machine.run("tc qdisc del dev eth0 root; tc qdisc del dev eth0 clsact")
