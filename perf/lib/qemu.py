"""One migration of a stopped guest by QEMU, for comparison: two processes, driven over QMP. By TCP and multifd, or by RDMA.

The migration protocol of QEMU ends at the source when the last byte is in its socket; the time taken here ends when the
destination reports that it has loaded everything. Both ends are QMP events with time stamps of the same clock. It begins
with the source's status `active`, behind setup and before the first page. Names of commands, capabilities and events:
QEMU's qapi/migration.json, version 7.2.
"""
import json
import socket
import time
from dataclasses import dataclass, field, replace

from bench import Failed

BINARY = "qemu-system-x86_64"
UNLIMITED = 10 ** 12  # bytes per second


@dataclass
class Way:
    """How the memory travels. uri: where the destination listens; port 0 of TCP is any. objects: -object words by side."""
    uri: str
    capabilities: list = field(default_factory=list)
    parameters: dict = field(default_factory=dict)
    objects: dict = field(default_factory=dict)


def multifd(channels):
    return Way("tcp:127.0.0.1:0", ["multifd"], {"multifd-channels": channels})


def tls(way, certificates, priority):
    """The same way, encrypted: certificates is a directory of them."""
    objects = {side: f"tls-creds-x509,id=tls,dir={certificates},endpoint={endpoint},priority={priority}"
               for side, endpoint in [("source", "client"), ("destination", "server")]}
    return replace(way, parameters={**way.parameters, "tls-creds": "tls"}, objects=objects)


def rdma(uri, pin_all):
    return Way(uri, ["rdma-pin-all"] if pin_all else [])


class Monitor:
    def __init__(self, child, path):
        self.child, self.events, self.buffer = child, [], b""
        self.socket = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.socket.connect(str(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if child.process.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"QEMU did not start: {child.complaint()}") from None
                time.sleep(0.01)
        self._next(60)  # the greeting
        self.execute("qmp_capabilities")

    def _next(self, limit):
        deadline = time.monotonic() + limit
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failed("QEMU does not answer")
            self.socket.settimeout(left)
            try:
                piece = self.socket.recv(65536)
            except TimeoutError:
                continue
            if not piece:
                raise Failed(f"QEMU ended: {self.child.complaint()}")
            self.buffer += piece
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def execute(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = self._next(60)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise Failed(f"QEMU: {command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def status_time(self, status, limit=600):
        """When the migration got this status, in seconds; waits for it."""
        deadline = time.monotonic() + limit
        seen = 0
        while True:
            for event in self.events[seen:]:
                reached = event["data"].get("status") if event["event"] == "MIGRATION" else None
                if reached == status:
                    return event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
                if reached in ("failed", "cancelled"):
                    raise Failed(f"QEMU: the migration {reached}: {self.child.complaint()}")
            seen = len(self.events)
            answer = self._next(deadline - time.monotonic())
            if "event" in answer:
                self.events.append(answer)


def _start(bench, side, ram, backend, more):
    path = bench.scratch / f"{side}.qmp"
    path.unlink(missing_ok=True)
    child = bench.start(BINARY, "-machine", "pc,memory-backend=ram", "-m", f"{ram >> 20}M", "-accel", "tcg", "-S",
                        "-nodefaults", "-no-user-config", "-display", "none",
                        "-object", f"{backend},id=ram,size={ram}", "-qmp", f"unix:{path},server=on,wait=off", *more)
    return child, Monitor(child, path)


def _objects(way, side):
    return ["-object", way.objects[side]] if side in way.objects else []


def _set_up(monitor, way):
    on = [{"capability": name, "state": True} for name in ["events", *way.capabilities]]
    monitor.execute("migrate-set-capabilities", capabilities=on)
    monitor.execute("migrate-set-parameters", **{"max-bandwidth": UNLIMITED, **way.parameters})


def _listen(monitor, uri):
    """Where to migrate to."""
    monitor.execute("migrate-incoming", uri=uri)
    if not uri.endswith(":0"):
        return uri
    for address in monitor.execute("query-migrate").get("socket-address", []):
        return f"tcp:127.0.0.1:{address['port']}"
    raise Failed("QEMU does not say where it listens")


def migrate(bench, ram, source, destination, way, source_more=(), inspect=None):
    """source, destination: -object words of the memory backends. inspect(source's pid, destination's pid) is called when
    all is done and both still live. seconds, and whole-seconds with the setup: to the end at the destination."""
    started = []
    try:
        target, incoming = _start(bench, "destination", ram, destination,
                                  ["-incoming", "defer", *_objects(way, "destination")])
        started.append(target)
        origin, outgoing = _start(bench, "source", ram, source, [*source_more, *_objects(way, "source")])
        started.append(origin)
        for monitor in (incoming, outgoing):
            _set_up(monitor, way)
        outgoing.execute("migrate", uri=_listen(incoming, way.uri))
        end = incoming.status_time("completed")
        outgoing.status_time("completed")
        report = outgoing.execute("query-migrate")
        result = {"seconds": end - outgoing.status_time("active"),
                  "whole-seconds": end - outgoing.status_time("setup"), "total-seconds": report["total-time"] / 1000,
                  "own-seconds": (report["total-time"] - report["setup-time"]) / 1000,
                  "downtime-ms": report["downtime"], "transferred": report["ram"]["transferred"]}
        if inspect:
            result["inspected"] = inspect(origin.pid, target.pid)
        return result
    finally:
        for child in started:
            bench.stop(child)


def version(bench):
    return bench.run(BINARY, "--version").split("\n")[0].removeprefix("QEMU emulator version ")
