"""A virtual machine with Debian's kernel and soft-RoCE, in which the host's programs run.

    from machine import Machine

    with Machine() as machine:
        code, out, err = machine.run(["ibv_devinfo", "-d", "rxe0"])
        server = machine.spawn("rping -s -C 3")
        client = machine.run(f"rping -c -a {machine.address} -C 3")
        server.wait()

QEMU emulates it, so the host needs neither RDMA nor KVM nor root; one boot, of a few seconds, serves many commands. The
machine sees the host's files under the same names and cannot change them; /tmp, /run and /dev/shm are its own and
fresh. What a command writes into the scratch folder is on the host at once.

Unavailable is raised when the host lacks what a machine needs, Lost when a machine ends, hangs or exceeds its deadline.
A machine ends with its `with` block or stop(), at its deadline, and with the thread that started it, even if that is
killed: QEMU gets SIGKILL then.
"""
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import host
import initramfs
import kernel
from agent import DEFAULT_LIMIT, Agent, Lost
from host import Unavailable

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]  # of the project
BUILD = ROOT / "build"
FRESH = [Path("/tmp"), Path("/run"), Path("/dev/shm")]  # the machine's own; init.c makes them
BOOT_LIMIT = 120  # seconds; a quiet host takes 5
STOP_LIMIT = 10
CONSOLE_LINES = 20  # of a lost machine's console: its end, or where the kernel began to complain
COMPLAINT = re.compile(r"Kernel panic|Oops|BUG: ")
NET_MTU = 4200  # makes room for RDMA's 4096 and its headers
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp",
               "LANG": "C.UTF-8"}
# What the kernel need not do in a machine that lives for minutes and holds no secrets.
KERNEL_COMMAND_LINE = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check cryptomgr.notests"


class Machine:
    def __init__(self, name="vm", memory="2G", cpus=2, rdma=True, build=BUILD, cache=None, keep=(), scratch=None,
                 deadline=900, verbose=False, wire=None, address="10.11.0.1", kernel_words=()):
        """
        name      its host name, and what messages call it
        memory    as of QEMU's -m
        rdma      whether to make rxe0, on v0 (one end of a veth pair, path MTU 4096) or on the wire
        build     the build directory whose programs are to run: see godwit()
        cache     where the kernel and the initramfs are kept (build/vm)
        keep      folders of /tmp, /run or /dev/shm that commands are to see nevertheless; the project, the build, the
                  cache and the current directory always are
        scratch   a folder that the machine may write to, under the same name
        deadline  seconds, all in all
        wire      a connected stream socket to another machine's; eth0 is at this end of it. wire.py makes pairs
        address   of rxe0, and so of both ends of a connection within the machine
        kernel_words  more of its command line
        """
        self.name, self.address = name, address
        self._memory, self._cpus, self._rdma = memory, cpus, rdma
        self.build = Path(build).resolve()
        self._cache = Path(cache).resolve() if cache else self.build / "vm"
        self._scratch = Path(scratch).resolve() if scratch else None
        self._keep = [ROOT, Path.cwd(), self.build, self._cache, *map(Path, keep)]
        self._deadline, self._verbose, self._wire = deadline, verbose, wire
        self._process = self._agent = self._timer = None
        self._expired = False
        self._kernel_words = [KERNEL_COMMAND_LINE, *kernel_words]

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Returns when commands can run."""
        try:
            self.launch()
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def run(self, command, limit=DEFAULT_LIMIT, **how):
        """The Answer of a command, (code, out, err). A text is one for the shell, a list is a program and its
        arguments. `how` is that of spawn()."""
        return self.spawn(command, **how).wait(limit)

    def godwit(self, *words, limit=DEFAULT_LIMIT, **how):
        """The Answer of the build's tool."""
        return self.run([self.build / "cli" / "godwit", *words], limit, **how)

    def wait_until(self, condition, limit=DEFAULT_LIMIT):
        """Until a shell command succeeds in the machine."""
        self.check(f"until {condition}; do sleep 0.05; done", limit)

    def check(self, command, limit=DEFAULT_LIMIT, **how):
        """What a command that must succeed wrote to its standard output."""
        answer = self.run(command, limit, **how)
        if answer.code != 0:
            what = command if isinstance(command, str) else " ".join(map(str, command[:3]))
            raise Lost("\n  ".join([f"the machine {self.name}: {what}", *answer.lines()]))
        return answer.out

    def spawn(self, command, cwd=None, env=None, user=None, memlock=None, out=None, err=None):
        """A Job. Its environment is small and fixed, and `env`; its standard input is empty. user: a number, which is
        the group as well (root). memlock: bytes, or "unlimited" (the kernel's default, which does not bind root). out,
        err: called with bytes as they come, instead of collecting them."""
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else [str(word) for word in command]
        return self._agent.spawn(words, cwd or Path.cwd(), {**ENVIRONMENT, **(env or {})}, user, memlock, out, err)

    def console(self):
        """What kernel and PID 1 said so far: errors, warnings, oopses."""
        return os.pread(self._console.fileno(), 1 << 20, 0).decode(errors="replace") if self._process else ""

    def launch(self):
        """Starts QEMU, and does not wait for it: two machines boot at once this way. start() is this and the next."""
        self._begin = time.monotonic()
        if platform.machine() != "x86_64":
            raise Unavailable(f"there are machines for x86_64 only, not for {platform.machine()}")
        qemu = host.need("qemu-system-x86_64", "qemu-system-x86")
        setpriv = host.need("setpriv", "util-linux")
        with kernel.locked(self._cache):
            self._kernel = kernel.find(self._cache)
            image = initramfs.build(self._cache, self._kernel)
        self._say("kernel and initramfs are there")
        ours, theirs = socket.socketpair()
        inherited = [theirs.fileno()] + ([self._wire.fileno()] if self._wire else [])
        self._console, self._complaint = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        words = [setpriv, "--pdeathsig", "KILL", qemu, *self._arguments(image, theirs.fileno())]
        with theirs:
            # A session of its own: a terminal's Ctrl-C is for us to handle.
            self._process = subprocess.Popen(words, start_new_session=True, stdin=subprocess.DEVNULL,
                                             stdout=self._console, stderr=self._complaint, pass_fds=inherited)
        self._agent = Agent(ours, self._describe_loss)
        self._timer = threading.Timer(self._deadline, self._expire, [self._process])
        self._timer.daemon = True
        self._timer.start()

    def wait_until_ready(self):
        if not self._agent.wait_until_ready(BOOT_LIMIT):
            raise self._describe_loss("does not boot")
        self._say("the agent answers")
        self.check(["sh", "-euc", (HERE / "boot.sh").read_text(), "boot.sh", *self._kept()], cwd="/", env={
            "NAME": self.name, "KERNEL": self._kernel.folder, "SCRATCH": self._scratch or "", "ADDRESS": self.address,
            "RDMA": "yes" if self._rdma else "", "WIRE": "yes" if self._wire else "", "MTU": NET_MTU})
        self._say("booted")

    def stop(self):
        """Powers the machine off, or ends it. May be called twice."""
        if not self._process:
            return
        self._timer.cancel()
        try:
            self._agent.send(b"Q")
            self._process.wait(STOP_LIMIT)
        except (Lost, subprocess.TimeoutExpired):
            pass
        finally:
            self._process.kill()
            self._process.wait()
            self._agent.join()
            self._process = None
            self._console.close()
            self._complaint.close()
        self._say("stopped")

    def _arguments(self, image, control):
        def shared(path, tag, *options):
            path = str(path).replace(",", ",,")
            options = [f"local,path={path},mount_tag={tag},security_model=none,multidevs=remap", *options]
            return ["-virtfs", ",".join(options)]

        words = ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-name", self.name,
                 "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", self._cpus, "-m", self._memory,
                 "-kernel", self._kernel.image, "-initrd", image, "-append", " ".join(self._kernel_words),
                 "-serial", "stdio",
                 "-chardev", f"socket,id=control,fd={control}", "-device", "virtio-serial-pci",
                 "-device", "virtserialport,chardev=control,nr=1", *shared("/", "root", "readonly=on")]
        if self._scratch:
            words += shared(self._scratch, "scratch")
        if self._wire:
            # The last byte of the address is the host's, so two ends of a wire differ.
            mac = "52:54:00:11:00:%02x" % int(self.address.rpartition(".")[2])
            words += ["-netdev", f"stream,id=wire,server=off,addr.type=fd,addr.str={self._wire.fileno()}",
                      "-device", f"virtio-net-pci,netdev=wire,mac={mac},host_mtu={NET_MTU},romfile="]
        return [str(word) for word in words]

    def _kept(self):
        """Folders of the host's to be seen through what is laid over them: the outermost of each."""
        found = []
        for path in sorted({path.resolve() for path in self._keep if path.exists()}):
            hidden = any(fresh in path.parents for fresh in FRESH)
            if hidden and not any(outer in path.parents for outer in found):
                found.append(path)
        return found

    def _expire(self, process):
        self._expired = True
        process.kill()

    def _describe_loss(self, what):
        if self._expired:
            what = f"was ended, its {self._deadline} s are over"
        lines = self.console().splitlines()
        end = max(len(lines) - CONSOLE_LINES, 0)
        begin = next((at for at, line in enumerate(lines) if COMPLAINT.search(line)), end)
        lines = lines[begin:begin + CONSOLE_LINES]
        if self._process:
            lines += os.pread(self._complaint.fileno(), 1 << 16, 0).decode(errors="replace").splitlines()
        return Lost("\n  ".join([f"the machine {self.name} {what}", *(line.rstrip() for line in lines)]))

    def _say(self, what):
        if self._verbose:
            print(f"{self.name}: {time.monotonic() - self._begin:6.2f} s: {what}", file=sys.stderr, flush=True)
