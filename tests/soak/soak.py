#!/usr/bin/env python3
"""Migrations under fault, one after another: soak.py --tool BUILD/cli/godwit [--transport T] [--tls x509|psk]
[--runs N | --minutes M] [--seed S].

Each run is a source and a destination (`godwit send --guest process`, `godwit recv --guest process --once`) as two
processes with a proxy in between, and one fault at a random moment of a random phase; everything random comes from the
seed, which is printed. Afterwards the run is judged by exit codes, the reports of both sides, the check of the memory of
the guest that runs, and the witness file. README.md has the outcomes that are allowed.

Ends with a table of outcomes and "N passed, N failed, N skipped". --tap reports one TAP test per run instead.
"""
import argparse
import collections
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
import faults  # noqa: E402
import sealed  # noqa: E402
import transports  # noqa: E402
import witness  # noqa: E402
from proxy import Proxy  # noqa: E402

MIB = 1 << 20
LIMIT = 25  # seconds: the sum of all timeouts below that can follow each other, and room for a busy machine
HOLD_PATIENCE = 7  # a source that holds asks every 2 s; who can answer by then has answered
TIMEOUTS = {"connect-timeout": 2000, "handshake-timeout": 800, "setup-timeout": 2000, "heartbeat-interval": 100,
            "peer-timeout": int(faults.PEER_TIMEOUT * 1000), "progress-timeout": 1200}  # ms
EVENTS = {"setup": ("hello", "OFFER", "ACCEPT"), "device": ("COMMIT", "LOADED"), "run": ("RUN",),
          "running": ("RUNNING",), "after": ("RUNNING", "BYE")}
NOBODY = 65534
SABOTAGE = ("swap-pages", "old-device-state")
NOTICED = re.compile("guest is wrong|counters went back")  # what the judge says of them
HELD = "the guest is held here, stopped"


class Process:
    def __init__(self, command, namespace=None, limits=None, user=None):
        """limits: {resource.RLIMIT_...: bytes}; user: a number, who need not have the right to raise them so far."""
        prefix = ["ip", "netns", "exec", namespace] if namespace else []
        prefix += ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"] if user else []
        self.out, self.err, self.frozen = "", "", False
        self.process = subprocess.Popen(
            [str(word) for word in prefix + command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
            preexec_fn=(lambda: [resource.setrlimit(what, (most, most)) for what, most in limits.items()])
            if limits else None)
        self.readers = [threading.Thread(target=self._read, args=(name,), daemon=True) for name in ("out", "err")]
        for reader in self.readers:
            reader.start()

    def _read(self, name):
        stream = self.process.stdout if name == "out" else self.process.stderr
        for line in stream:
            setattr(self, name, getattr(self, name) + line)

    def signal(self, number):
        try:
            self.process.send_signal(number)
        except ProcessLookupError:
            pass

    def over(self):
        return self.process.poll() is not None

    def wait(self, seconds):
        """The exit code, negative for a signal; None when it has not ended in time."""
        try:
            self.process.wait(max(seconds, 0.01))
        except subprocess.TimeoutExpired:
            return None
        for reader in self.readers:
            reader.join(2)
        return self.process.returncode

    def say(self, text):
        try:
            self.process.stdin.write(text)
            self.process.stdin.flush()
        except (OSError, ValueError):
            pass

    def bury(self):
        if not self.over():
            self.signal(signal.SIGKILL)
        code = self.wait(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                stream.close()
            except OSError:
                pass
        return code

    @property
    def report(self):
        try:
            return json.loads(self.out)
        except ValueError:
            return {}


class Net:
    """Two network namespaces and a cable; the proxy stands on the destination's side."""

    def __init__(self, name):
        self.source, self.destination = f"{name}s", f"{name}d"
        self.device, peer = "link0", "link1"
        self.here, self.there = "192.0.2.1", "192.0.2.2"
        self.made = False
        commands = [f"ip netns add {self.source}", f"ip netns add {self.destination}",
                    f"ip -n {self.source} link add {self.device} type veth peer name {peer} netns {self.destination}",
                    f"ip -n {self.source} addr add {self.here}/24 dev {self.device}",
                    f"ip -n {self.destination} addr add {self.there}/24 dev {peer}",
                    f"ip -n {self.source} link set {self.device} up", f"ip -n {self.destination} link set {peer} up",
                    f"ip -n {self.destination} link set lo up"]
        self.made = all(subprocess.run(c.split(), capture_output=True).returncode == 0 for c in commands)

    def mend(self):
        for command in (f"ip -n {self.source} route del blackhole {self.there}/32",
                        f"ip -n {self.destination} route del blackhole {self.here}/32",
                        f"ip -n {self.source} link set {self.device} up"):
            subprocess.run(command.split(), capture_output=True)

    def remove(self):
        for name in (self.source, self.destination):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@dataclass
class Run:
    """One migration and its fault. Everything that is chosen is chosen here, from the seed."""
    tool: str
    seed: int
    kind: str
    folder: Path
    transport: transports.Tcp
    net: Net = None
    tls: sealed.Tls = None
    renews: int = 0  # bytes after which keys are
    verifies: bool = True  # the source by its certificate
    wanted: str = ""  # the phase the fault was aimed at
    phase: str = "never"  # the one it hit
    outcome: str = "?"
    problems: list = field(default_factory=list)
    seconds: float = 0.0
    fault_at: int = None  # ns
    channels: int = 0  # 0: from the seed
    sabotage: str = None  # x-fault: damage that nothing but the judge can see
    source_code: int = None
    destination_code: int = None
    source: Process = None
    destination: Process = None
    proxy: Proxy = None

    def __post_init__(self):
        self.random = random.Random(f"{self.seed} {self.kind}")
        self.act, phases, self.allowed = known_faults(self.transport, self.tls)[self.kind]
        self.wanted = self.random.choice(phases)
        self.moving = self.transport.moving_sealed if self.tls else self.transport.moving
        self.event = self.random.choice({**(sealed.EVENTS if self.tls else EVENTS), "active": (self.moving,)}.get(
            self.wanted, ("",)))
        self.ram = self.random.choice((8, 16, 32)) * MIB
        patience = self.transport.patience
        self.limit, self.peer_timeout = LIMIT * patience, faults.PEER_TIMEOUT * patience
        seconds = self.random.uniform(0.15, 0.6) * patience
        self.after = self.random.uniform(0, seconds) if self.wanted == "active" else patience * self.random.choice(
            (0, self.random.uniform(0, 0.01), self.random.uniform(0, 0.12)))
        self.options = {"multifd-channels": self.random.randint(1, 4), "max-bandwidth": int(self.ram / seconds),
                        "downtime-limit": self.random.choice((20, 100, 300)) * patience,
                        "switchover-timeout": self.random.choice((700, 1500)) * patience}
        # at most half of what the line carries, so that every migration converges
        self.guest = {"ram": self.ram, "dirty-rate": int(min(self.random.choice((4, 16, 40)) * MIB, self.ram / seconds / 2,
                                                    MIB if self.kind in ("delay", "split") else 1 << 40)),
                      "hot-set": self.ram // self.random.choice((2, 4, 16)),
                      "pattern": self.random.choice(("random", "random", "mixed", "zero"))}
        self.hold = {name: self.random.uniform(0, 0.08) * patience for name in ("OFFER", "ACCEPT", "COMMIT", "LOADED",
                     "RUN", "RUNNING", "BYE") if self.random.random() < 0.5}
        if self.sabotage:
            self.options["x-fault"] = self.sabotage
            # pages that differ, and that the guest does not write again: such damage would have healed
            self.guest.update({"pattern": "random", "dirty-rate": MIB, "hot-set": MIB})
        self.rights = {"source": {}, "destination": {}}  # limits and user of each process
        if self.kind == "no-memory":
            self.rights["destination"] = {"limits": {resource.RLIMIT_AS: self.random.randint(8, 120) * MIB}}
        if self.kind == "no-memlock":  # which does not bind root
            self.rights[self.random.choice(("source", "destination"))] = {
                "limits": {resource.RLIMIT_MEMLOCK: self.random.randint(1, 60) * MIB}, "user": NOBODY}
        if self.tls:
            self.hold = {"control": self.random.choice((0, self.random.uniform(0, 0.03))) * patience}
            self.tls.choose(self)
        if self.channels:
            self.options["multifd-channels"] = self.channels
        if not self.transport.one_sided and self.random.random() < 0.25:
            self._limit_lifetime()

    def _limit_lifetime(self):
        """Each data channel is replaced, some times per pass. That takes time, so there has to be less to do."""
        share = self.ram // self.options["multifd-channels"]
        self.options["x-channel-lifetime"] = share // self.random.choice((1, 2, 4))
        self.guest["dirty-rate"] = min(self.guest["dirty-rate"], MIB)

    # ---- doing it ----

    def perform(self):
        begin = time.monotonic()
        self.deadline = begin + self.limit
        self.witness = self.folder / "witness"
        self.witness.touch()
        self.witness.chmod(0o666)  # one side may be another user's
        self.destination = Process([self.tool, "recv", self.transport.listens_at(self), "--once",
                                    *self._words("destination")],
                                   self.net and self.net.destination, **self.rights["destination"])
        try:
            uri = self._address()
            if uri:
                self._migrate(uri)
        finally:
            if self.proxy:
                self.proxy.close()
            for process in (self.source, self.destination):
                if process:
                    process.bury()
            if self.net:
                self.net.mend()
            self.transport.remove(self)
        self.seconds = time.monotonic() - begin
        judge(self)
        self.problems += self.transport.problems(self)

    def _words(self, side):
        """What this side is told, and the other one too but for TLS."""
        timeouts = [f"--{name}={value * self.transport.patience}ms" for name, value in TIMEOUTS.items()]
        return ["--guest", "process", "--check", "--json", "--witness", self.witness, *timeouts,
                *(self.tls.words(side, self) if self.tls else [])]

    def _address(self):
        """What the destination says it listens at."""
        while time.monotonic() < self.deadline and not self.destination.over():
            match = re.search(r"listening on (\S+)\s", self.destination.err)
            if match:
                return match[1]
            time.sleep(0.005)
        if not self.rights["destination"]:
            self.problems.append("the destination did not listen")
        return None

    def _migrate(self, uri):
        self.proxy, uri = self.transport.insert(self, uri)
        if self.tls:
            threading.Thread(target=sealed.watch_guests, args=(self,), daemon=True).start()
        if self.wanted == "start":
            self._strike()
        options = [f"--{name}={value}" for name, value in {**self.options, **self.guest}.items()]
        self.source = Process([self.tool, "send", uri, *self._words("source"), *options], self.net and self.net.source,
                              **self.rights["source"])
        patience = 8 * self.transport.patience
        if self.wanted != "start" and self.proxy.wait_for(self.event, patience, self.source.over):
            time.sleep(self.after)
            self._strike()
        self._end_source()
        self._end_destination()

    def _strike(self):
        passed = self.proxy.passed
        self.phase = ("start" if not self.source else sealed.phase(passed) if self.tls else
                      "after" if "RUNNING" in passed else "running" if "RUN" in passed else
                      "run" if "RUN" in self.proxy.seen else "device" if "COMMIT" in self.proxy.seen else
                      "active" if self.moving in passed else "setup")
        self.fault_at = time.monotonic_ns()
        self.act(self)

    def _end_source(self):
        """The source ends by itself, or it holds the guest: then it is told to give it up, after a while."""
        held_since = None
        while self.source_code is None and time.monotonic() < self.deadline:
            if self.source.frozen:
                self._outwait(self.destination)
                return
            self.source_code = self.source.wait(0.02)
            if held_since is None and HELD in self.source.err:
                held_since = time.monotonic()
            patience = self.transport.patience * (0.3 if "unknown" in self.allowed else HOLD_PATIENCE)
            if held_since and time.monotonic() - held_since > patience:
                self.source.say("quit\n")
                held_since = time.monotonic() + self.limit
        if self.source_code is None and not self.source.frozen:
            self.problems.append(f"the source did not end within {self.limit} s")

    def _outwait(self, process):
        """Until the other side has noticed that this one is frozen."""
        end = time.monotonic() + 6 * self.peer_timeout
        while time.monotonic() < end and not process.over():
            time.sleep(0.02)

    def _end_destination(self):
        if self.destination.frozen:
            return
        if self.source_code != 0 and self.source_code is not None:
            time.sleep(0.05)
        end = time.monotonic() + 8 * self.peer_timeout
        while time.monotonic() < end and not self.destination.over() and not self._runs_there():
            time.sleep(0.02)
        self.destination.signal(signal.SIGTERM)
        self.destination_code = self.destination.wait(max(self.deadline - time.monotonic(), 3))
        if self.destination_code is None:
            self.problems.append("the destination did not end after SIGTERM")

    def _runs_there(self):
        """The destination's guest has been seen to run for a while: tens of ticks, one a millisecond."""
        return witness.count_ticks(self.witness, witness.DESTINATION) >= 30


# ---- judging it ----

def judge(run):
    say = run.problems.append
    records = witness.read(run.witness)
    spans = witness.spans(records)
    there = [span for span in spans if span.side == witness.DESTINATION]
    here = [span for span in spans if span.side == witness.SOURCE]
    passed = run.proxy.passed if run.proxy else {}
    for text in witness.problems(records, sealed.stopped_at(here) if run.tls else passed.get("RUN")):
        say(text)
    if run.proxy is None:
        run.outcome = "refused"
        if run.destination_code is None and run.destination.process.returncode is None:
            say("the destination neither listened nor ended")
        return
    source_gone = run.source_code is None or run.source_code < 0
    run.outcome = name_outcome(run, there, source_gone)
    if run.outcome not in run.allowed and not (run.phase == "never" and run.outcome == "completed"):
        say(f"{run.outcome} is not allowed after {run.kind} ({run.phase})")
    judge_codes(run, say, here, there, source_gone)
    judge_memory(run, say, there)
    if run.tls:
        sealed.judge(run, say)


def known_faults(transport, inside):
    known = faults.inside_tls(transport.faults, transport.one_sided) if inside else transport.faults
    return {**known, **faults.NETWORK_FAULTS}


def name_outcome(run, there, source_gone):
    if source_gone:
        return "there" if there else "nowhere"
    return {0: "completed", 1: "failed", 3: "unknown"}.get(run.source_code, f"code {run.source_code}")


def judge_codes(run, say, here, there, source_gone):
    code = run.source_code
    if code is not None and code < 0 and run.kind != "kill-source":
        say(f"the source was killed by {signal.Signals(-code).name}")
    theirs = run.destination_code
    starved = run.tls and not there and sealed.starved(run)
    if theirs is not None and theirs < 0 and run.kind != "kill-destination" and not starved:
        say(f"the destination was killed by {signal.Signals(-theirs).name}")
    if source_gone and run.kind not in faults.GONE_SOURCE:
        say("the source is gone, and nobody took it away")
    if code == 0 and not there:
        say("the source says completed, and the guest never ran at the destination")
    if code == 1 and there:
        say("the source says failed, and the guest ran at the destination")
    if code == 1 and not run.source.report.get("check"):
        say("the source has not checked its guest")
    if there and theirs == 1:
        say("the destination says failed, and the guest ran there")
    if not there and theirs == 0:
        say("the destination says completed, and the guest never ran there")
    # RUN itself may be lost in a connection that broke
    if code == 3 and not (sealed.stopped_at(here) if run.tls else "LOADED" in run.proxy.passed):
        say("the outcome is unknown, and RUN cannot have been sent yet")
    if not here:
        say("the guest never ran at the source")


def judge_memory(run, say, there):
    for name, process in (("source", run.source), ("destination", run.destination)):
        check = process.report.get("check")
        if not check:
            continue
        if check["wrong"] or check["pages"] + check["skipped"] != run.ram // 4096:
            say(f"the memory of the {name}'s guest is wrong: {check}")
        if name == "source" and not check["runs"]:
            say("the guest does not run on at the source")
    if run.destination_code == 0 and there and not run.destination.report.get("check"):
        say("the destination has not checked its guest")
    if run.destination_code == 0 and there and not there[0].ticks and run.kind != "cancel-destination":
        say("the guest does not run on at the destination")


# ---- all of them ----

def describe(run):
    lines = [f"{run.kind} aimed at {run.wanted}, hit {run.phase}, seed {run.seed}: {run.outcome}; "
             f"codes {run.source_code} and {run.destination_code}, {run.seconds:.1f} s"]
    lines += [f"  {text}" for text in run.problems]
    if run.proxy:
        lines.append(f"  proxy: {run.proxy.done} passed {list(run.proxy.passed)}")
    for name, process in (("source", run.source), ("destination", run.destination)):
        if process:
            lines += [f"  {name}: {line}" for line in process.err.splitlines() if ": received" not in line][-6:]
            lines.append(f"  {name}: {process.out.strip()[:200]}")
    return lines


class Soak:
    def __init__(self, options):
        self.options, self.lock = options, threading.Lock()
        self.transport = transports.BY_NAME[options.transport]()
        self.transport.check()
        self.jobs = 1 if self.transport.alone else options.jobs
        self.folder = Path(tempfile.mkdtemp(prefix="godwit-soak-"))
        self.folder.chmod(0o755)  # a fault is about a user without privileges
        self.nets, self.local = [], threading.local()
        self.runs, self.count, self.failed = [], 0, 0
        self.network = (options.network and self.transport.networks and faults.is_root() and
                        shutil.which("ip") is not None)
        self.tls = sealed.Tls(options.tls, options.tool, self.folder) if options.tls else None
        self.known = known_faults(self.transport, self.tls)
        self.kinds = [kind for kind in self.known if kind not in faults.NETWORK_FAULTS]
        if self.network:
            trial = Net(f"gws{os.getpid()}x")
            self.network = trial.made
            trial.remove()
        if self.network:
            self.kinds += list(faults.NETWORK_FAULTS)
        if options.only:
            self.kinds = [kind for kind in self.kinds if re.search(options.only, kind)]

    def net(self):
        if not self.network:
            return None
        if not hasattr(self.local, "net"):
            with self.lock:
                self.local.net = Net(f"gws{os.getpid()}n{len(self.nets)}")
                self.nets.append(self.local.net)
        return self.local.net if self.local.net.made else None

    def one(self, seed, kind=None, sabotage=None, channels=0):
        choice = random.Random(seed)
        # every kind in turn, so that a short soak has them all
        kind = kind or self.kinds[seed % len(self.kinds)]
        network = kind in faults.NETWORK_FAULTS or choice.random() < 0.2
        folder = self.folder / f"run-{seed}-{sabotage or kind}"
        folder.mkdir()
        run = Run(self.options.tool, seed, kind, folder, self.transport, self.net() if network else None,
                  self.tls, channels=channels, sabotage=sabotage)
        try:
            run.perform()
        except Exception as error:  # a bug of ours must not end the soak
            run.problems.append(f"the runner: {type(error).__name__}: {error}")
        if sabotage:  # it is the judge that is tested
            noticed = any(NOTICED.search(text) for text in run.problems)
            run.problems = [] if noticed else [f"{sabotage} was not noticed", *run.problems]
            run.kind = f"{kind} with {sabotage}"
        if run.problems:
            (folder / "report").write_text("\n".join(describe(run)) + "\n")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        with self.lock:
            self.finish(run)

    def finish(self, run):
        self.count += 1
        self.failed += bool(run.problems)
        self.runs.append((run.kind, run.phase, run.outcome, run.seconds, bool(run.problems)))
        # allowed, since a machine may be too slow for its timeouts, and yet to be looked at
        unprovoked = run.phase == "never" and run.outcome != "completed"
        lines = describe(run) if run.problems or unprovoked or self.options.verbose else []
        if self.options.tap:
            print(f"{'not ok' if run.problems else 'ok'} {self.count} - {run.kind}, seed {run.seed}, "
                  f"hit {run.phase}: {run.outcome}")
            for line in lines:
                print(f"# {line}")
        else:
            for line in lines:
                print(line)
        sys.stdout.flush()

    def perform(self):
        work = []
        if self.options.short and self.tls:
            work = [(seed, kind, None, channels) for seed, (kind, channels) in enumerate(sealed.SHORT)]
        elif self.options.short:
            work = [(seed, "none", name) for seed, name in enumerate(SABOTAGE)]
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self._work(work)
        finally:
            for net in self.nets:
                net.remove()
            if self.tls:
                self.tls.remove()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _work(self, work):
        with ThreadPoolExecutor(max_workers=self.jobs) as pool:
            pending = set()
            for arguments in itertools.chain(work, ((seed,) for seed in self.seeds())):
                pending.add(pool.submit(self.one, *arguments))
                while len(pending) >= self.jobs:
                    done = {future for future in pending if future.done()}
                    pending -= done
                    for future in done:
                        future.result()
                    if not done:
                        time.sleep(0.01)
        for future in pending:
            future.result()

    def seeds(self):
        if self.options.short and self.tls:
            return
        if self.options.short:
            short = self.transport.short or self.kinds
            yield from (seed for seed, kind in enumerate(self.kinds) if kind in short)
            yield self.options.seed
            return
        end = time.monotonic() + self.options.minutes * 60 if self.options.minutes else None
        for number in range(self.options.runs if not end else 1 << 40):
            if end and time.monotonic() > end:
                return
            yield self.options.seed + number

    def table(self):
        phases = ["start", "setup", "active", "device", "run", "running", "after", "never"]
        rows = collections.defaultdict(collections.Counter)
        for kind, phase, outcome, _, _ in self.runs:
            rows[kind][phase, outcome] += 1
        totals = collections.Counter()
        print(f"{'fault':26}" + "".join(f"{phase:>16}" for phase in phases))
        letters = {"completed": "c", "failed": "f", "unknown": "u", "there": "t", "nowhere": "n", "refused": "r"}
        for kind in [k for k in self.known if k in rows]:
            cells = []
            for phase in phases:
                found = sorted((o, n) for (p, o), n in rows[kind].items() if p == phase)
                cells.append(" ".join(f"{n}{letters.get(o, o)}" for o, n in found))
            print(f"{kind:26}" + "".join(f"{cell or '.':>16}" for cell in cells))
            for (_, outcome), count in rows[kind].items():
                totals[outcome] += count
        print("c completed, f failed (the guest runs on at the source), u unknown (held, then given up), "
              "t runs there (the source is gone), n gone with the source before RUN, r not even listened")
        seconds = sorted(run[3] for run in self.runs) or [0]
        print(f"{dict(totals)}; seconds per run: median {seconds[len(seconds) // 2]:.1f}, longest {seconds[-1]:.1f}")


def main():
    parser = argparse.ArgumentParser(description="Migrations under fault.")
    parser.add_argument("--tool", required=True, help="the godwit program")
    parser.add_argument("--transport", choices=transports.BY_NAME, default="tcp")
    parser.add_argument("--tls", choices=sealed.KINDS, default=None, help="inside TLS, with credentials of this kind")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=0, help="for so long, instead of a number of runs")
    parser.add_argument("--seed", type=int, default=None, help="of the first run; the others follow")
    parser.add_argument("--only", default="", metavar="REGEX", help="faults whose name contains it")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--no-network", dest="network", action="store_false", help="no network namespaces")
    parser.add_argument("--short", action="store_true",
                        help="every fault once by fixed seeds and one by a random seed, in TAP; and damage that must "
                             "be found. With --tls: each number of channels, and a few faults")
    parser.add_argument("--tap", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 30)
    options.tap = options.tap or options.short
    try:
        soak = Soak(options)
    except transports.Missing as error:
        parser.error(error)
    print(f"{'# ' if options.tap else ''}seed {options.seed}, {soak.jobs} at a time", flush=True)
    soak.perform()
    if options.tap:
        print(f"1..{soak.count}")
    if not options.tap:
        soak.table()
        print(f"{soak.count - soak.failed} passed, {soak.failed} failed, 0 skipped")
    return 1 if soak.failed else 0


if __name__ == "__main__":
    sys.exit(main())
