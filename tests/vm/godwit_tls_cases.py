"""TLS where the kernel can have its keys: Linux 6.1 has the module, and GnuTLS is configured to allow it here."""
import re

import tap
from migration import CALM, LIMIT, SAFE, demo, errors, recv, report, send, start_send, succeeded, verified

CREDS = "/tmp/tls-creds"
CONFIGURATION = "/tmp/gnutls.conf"
ENVIRONMENT = {"GNUTLS_SYSTEM_PRIORITY_FILE": CONFIGURATION}
WORDS = ["--tls-creds", CREDS]


def prepare(t):
    """Once for the machine."""
    if t.machine.run(["test", "-e", CONFIGURATION]).code == 0:
        return
    t.machine.check("/run/modprobe tls")
    made = t.machine.godwit("pki", CREDS, "--host", f"{t.machine.address},localhost")
    if made.code != 0:
        raise RuntimeError(made.err)
    t.machine.check("head -c 12M /dev/urandom >/tmp/memory")
    t.machine.check(f"printf '[global]\\nktls = true\\n' >{CONFIGURATION}")


def taken_over(t):
    """How often the kernel was given the keys of a direction: {"Tx": n, "Rx": n}."""
    found = re.findall(r"^Tls(Tx|Rx)Sw\s+(\d+)", t.machine.check("cat /proc/net/tls_stat"), re.M)
    return {way: int(count) for way, count in found}


def by_kernel(answer):
    return {channel["tls-kernel"] for channel in report(answer).get("channels", [{"tls-kernel": "no report"}])}


def transfer(t, there, here, *words):
    """Memory from a file into a dump, with tls-kernel as given on either side: (answer of recv, answer of send, is the dump
    right?)."""
    job, uri = recv(t.machine, "--once", "--json", "--dump", "/tmp/dump", *WORDS, "--tls-kernel", there,
                    uri=f"tcp:{t.machine.address}:0", env=ENVIRONMENT)
    sent = send(t.machine, uri, "--guest", "idle", "--memory-from", "/tmp/memory", "--json", *WORDS, "--tls-kernel", here,
                *words, env=ENVIRONMENT)
    got = job.wait(60)
    same = t.machine.run("cmp /tmp/memory /tmp/dump; code=$?; rm -f /tmp/dump; exit $code").code == 0
    return got, sent, same


def has_the_keys_on_either_side(t):
    prepare(t)
    for there, here in (("on", "on"), ("on", "off"), ("off", "on"), ("off", "off")):
        for channels in (1, 4):
            before = taken_over(t)
            got, sent, same = transfer(t, there, here, "--channels", channels)
            count = {way: number - before[way] for way, number in taken_over(t).items()}
            name = f"destination {there}, source {here}, {channels} channels"
            t.expect(succeeded(got, sent) and same, f"{name}: arrives", got, sent)
            t.expect(by_kernel(got) == {there == "on"} and by_kernel(sent) == {here == "on"}, f"{name}: reported", got, sent)
            sides = (there == "on") + (here == "on")
            t.expect(set(count.values()) == {sides * (channels + 1)}, f"{name}: the kernel says {count}")


def proves_a_good_migration(t):
    prepare(t)
    for kind in ("x509", "psk"):
        answer = t.machine.godwit("demo", "--ram", "24M", "--dirty-rate", "5M", f"--tls={kind}", "--json", *CALM, limit=LIMIT,
                                  env=ENVIRONMENT)
        t.expect(verified(answer) and by_kernel(answer) == {True}, f"a live guest, {kind}", answer)


def is_left_alone_unless_it_was_allowed(t):
    prepare(t)
    answer = t.machine.godwit("demo", "--ram", "8M", "--dirty-rate", "5M", "--tls", "--tls-kernel", "on", "--json", *CALM,
                              limit=LIMIT)
    t.expect(verified(answer) and by_kernel(answer) == {False}, "without ktls in GnuTLS's configuration", answer)


def takes_no_cut_for_an_end(t):
    """A process that is killed says no goodbye; its kernel does not say it either."""
    prepare(t)
    for killed in ("send", "recv"):
        job, uri = recv(t.machine, "--once", *WORDS, "--discard", uri=f"tcp:{t.machine.address}:0", env=ENVIRONMENT)
        sender = start_send(t.machine, uri, "--guest", "idle", "--memory-from", "/tmp/memory", "--max-bandwidth", "1M",
                            "--downtime-limit", "1", *WORDS, env=ENVIRONMENT)
        sender.wait_for("active")
        dead, alive = (sender, job) if killed == "send" else (job, sender)
        dead.signal(9)
        dead.wait(60)
        answer = alive.wait(60)
        said = errors(answer)
        t.expect(answer.code == 1 and len(said) == 1, f"{killed} is killed: the other side fails", answer)
        if killed == "send":
            t.expect(said and "without TLS's closing notify" in said[0], "it says that nobody said goodbye", answer)
        else:
            t.expect(said and SAFE in said[0], "the guest runs on", answer)


def protects_the_control_connection_of_rdma(t):
    answer = demo(t.machine, "--ram", "16M", "--dirty-rate", "5M", "--tls")
    channels = report(answer).get("channels", [])
    t.expect(verified(answer) and channels and all(channel["device"] == "rxe0" and channel["tls-version"] is None
                                                   for channel in channels), "verified, pages on queue pairs", answer)
    warnings = [line for line in answer.err.splitlines() if "pages over RDMA are not encrypted" in line]
    t.expect(1 <= len(warnings) <= 2, "and a warning that pages are not encrypted", answer)
    answer = demo(t.machine, "--ram", "16M", "--tls", "--tls-required", "on")
    t.expect(answer.code != 0 and "are not encrypted" in answer.err, "refused where TLS is required", answer)


def conforms_to_the_contract_of_channels(t):
    """Where the kernel has the keys; GnuTLS goes on where a channel wraps the socket."""
    prepare(t)
    before = taken_over(t)
    program = t.build / "tests" / "conformance" / "conformance_test"
    answer = t.machine.run([program, "--tap=/tmp/tap", "--color=never"], 600,
                           env={**ENVIRONMENT, "GODWIT_TEST_TLS_ALONE": "1"})
    found = tap.parse(t.machine.run("cat /tmp/tap").out)
    bad = [case for case in found.cases if case.status == "failed"]
    passed = [case for case in found.cases if case.status == "passed"]
    t.expect(answer.code == 0 and len(passed) > 20 and not bad and not found.errors, f"{len(passed)} clauses of it",
             *found.errors, *(f"{case.name}: {line}" for case in bad for line in case.text), answer)
    count = taken_over(t)["Tx"] - before["Tx"]
    t.expect(count >= 20, f"the kernel had the keys of {count} ends")


CASES = [conforms_to_the_contract_of_channels, has_the_keys_on_either_side, proves_a_good_migration, is_left_alone_unless_it_was_allowed, takes_no_cut_for_an_end,
         protects_the_control_connection_of_rdma]
