"""What is different for a run of the soak inside TLS: its credentials, how its moments are told from outside, what else
it is judged by. The proxy cannot read records there; the witness of the guest says when it is stopped and started.

    tls = Tls("x509", tool, folder) # makes the credentials
    tls.choose(run)                 # options of the run, from its seed
    tls.words("source", run)
    tls.remove()
"""
import shutil
import signal
import subprocess

import witness

KINDS = ("x509", "psk")
HOST = "localhost"
CHANNELS = (1, 4, 16)
RENEWALS = (64 << 10, 300_000, 2 << 20)  # bytes
EVENTS = {"setup": ("hello",), "device": ("stopped",), "run": ("stopped",), "running": ("started",),
          "after": ("started",)}
WITNESSED = {(witness.SOURCE, witness.STOP): "stopped", (witness.DESTINATION, witness.START): "started"}
# Fault and channels of each run of the short form; their seeds count from 0.
SHORT = (("none", 1), ("none", 4), ("none", 16), ("corrupt-data", 4), ("handshake-stops", 16), ("lost-connections", 1))


class Tls:
    def __init__(self, kind, tool, folder):
        self.kind = kind
        self.creds, self.anonymous = folder / kind, folder / "anonymous"
        made = subprocess.run([tool, "pki", self.creds, *(["--psk", "qemu"] if kind == "psk" else ["--host", HOST])],
                              capture_output=True, text=True)
        if made.returncode != 0:
            raise RuntimeError(f"godwit pki: {made.stderr.strip()}")
        if kind == "x509":  # of a source that has no certificate
            self.anonymous.mkdir(mode=0o700)
            shutil.copy(self.creds / "ca-cert.pem", self.anonymous)

    def choose(self, run):
        run.options["multifd-channels"] = run.random.choice(CHANNELS)
        run.renews = run.random.choice(RENEWALS) if run.random.random() < 0.4 else 0
        run.verifies = self.kind != "x509" or run.random.random() < 0.75

    def words(self, side, run):
        said = [f"--tls-creds={self.creds if run.verifies or side == 'destination' else self.anonymous}",
                f"--x-tls-renew={run.renews}"]
        if side == "source":
            said.append(f"--tls-hostname={HOST}")
        elif not run.verifies:
            said.append("--tls-verify-peer=off")
        return said

    def remove(self):
        for folder in (self.creds, self.anonymous):
            shutil.rmtree(folder, ignore_errors=True)


def phase(passed):
    """RUN and RUNNING cannot be told apart from what is around them."""
    return ("running" if "started" in passed else "device" if "stopped" in passed else
            "active" if "data" in passed else "setup")


def watch_guests(run):
    """Tells the proxy what it cannot read, until it is closed."""
    for what in witness.follow(run.witness, lambda: run.proxy.closed):
        if what in WITNESSED:
            run.proxy.passes(WITNESSED[what])
            run.proxy.saw(WITNESSED[what])


def stopped_at(here):
    """When the source's guest was stopped, which is before RUN; None if it never was."""
    return min((span.last for span in here if span.ended), default=None)


def starved(run):
    """The destination ended in one of GnuTLS's libraries, which do not survive that an allocation fails: GMP says so and
    aborts, libtasn1, for certificates, goes on with the null pointer."""
    return run.kind == "no-memory" and ("GNU MP: Cannot allocate" in run.destination.err or (
        run.tls.kind == "x509" and run.destination_code == -signal.SIGSEGV))


def judge(run, say):
    if run.proxy.unsealed:
        say("a connection was not inside TLS")
    if run.proxy.spoiled and run.outcome == "completed":
        say("pages were damaged on their way, and the migration completed")
    if run.source_code == 0:
        wanted = {None} if run.transport.one_sided else {"TLS1.3"}
        versions = {channel["tls-version"] for channel in run.source.report.get("channels", [])}
        if versions != wanted:
            say(f"the data channels had TLS versions {versions}, not {wanted}")
