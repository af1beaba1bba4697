"""What moves inside TLS arrives: demos, transfers into a dump, planted faults, and keys that change all the time."""
import filecmp
import os
from pathlib import Path

import credentials

MIB = 1 << 20
KINDS = ["x509", "psk"]
NETS = ["tcp", "unix"]
CHANNELS = ["1", "4", "16"]


def secured(answer):
    """Is every channel of the report inside TLS?"""
    channels = (answer.json or {}).get("channels", [])
    return channels and all(channel["tls-version"] == "TLS1.3" and channel["tls-cipher"] for channel in channels)


def proves_a_good_migration(t):
    for kind in KINDS:
        for net in NETS:
            for channels in CHANNELS:
                answer = t.tool.run("demo", "--ram", "16M", "--dirty-rate", "20M", "--transport", net, f"--tls={kind}",
                                    "--channels", channels, "--json")
                good = answer.code == 0 and (answer.json or {}).get("verified") is True and not answer.errors
                t.expect(good and secured(answer) and len(answer.json["channels"]) == int(channels),
                         f"{kind} over {net}, {channels} channels", answer)
    leftovers = list(Path("/tmp").glob("godwit-demo-*"))
    t.expect(not leftovers, "credentials made for a run are gone", *map(str, leftovers))


def finds_a_planted_fault(t):
    answer = t.tool.run("demo", "--ram", "64M", "--dirty-rate", "30M", "--max-bandwidth", "200M", "--tls", "--json",
                        "--x-fault", "swap-pages")
    report = answer.json or {}
    t.expect(answer.code == 1 and report.get("status") == "completed" and report.get("verified") is False
             and "pages differ" in (report.get("verify-desc") or "") and secured(answer),
             "in pages that were exchanged before they were encrypted", answer)


def a_dump_is_the_file_that_was_sent(t):
    made = credentials.Made(t)
    source, dump = t.scratch / "source", t.scratch / "dump"
    source.write_bytes(os.urandom(5 * MIB + 12288))
    for kind, directory in (("x509", made.x509()), ("psk", made.psk())):
        for net, address in (("tcp", "tcp:127.0.0.1:0"), ("unix", f"unix:{t.scratch}/socket")):
            for channels in CHANNELS:
                words = ["--tls-creds", directory]
                running, uri = t.tool.recv("--once", "--json", "--dump", dump, *words, uri=address)
                sent = t.tool.run("send", uri or "tcp:127.0.0.1:1", "--guest", "idle", "--memory-from", source, "--json",
                                  "--channels", channels, *words, "--tls-hostname", "localhost")
                got = running.end()
                t.expect(sent.code == 0 and got.code == 0 and secured(sent) and secured(got)
                         and filecmp.cmp(source, dump, shallow=False), f"{kind} over {net}, {channels} channels", sent, got)
                dump.unlink(missing_ok=True)


def renewals(answer):
    """How often a side of the run changed its sending keys: GnuTLS's log says it."""
    return answer.err.count("sending key update")


def keys_change_all_the_time(t):
    """At most every 150 ms in each direction, so a run that the rate limit holds up for seconds sees dozens of changes."""
    log = {**os.environ, "GNUTLS_DEBUG_LEVEL": "4"}
    for kind in KINDS:
        answer = t.tool.run("demo", "--ram", "96M", "--dirty-rate", "5M", "--hot-set", "8M", "--channels", "4",
                            "--max-bandwidth", "32M", f"--tls={kind}", "--x-tls-renew", "1M", "--json", env=log)
        count = renewals(answer)
        t.expect(answer.code == 0 and (answer.json or {}).get("verified") is True and not answer.errors and secured(answer),
                 f"{kind}: a live guest over 4 channels, verified", answer)
        t.expect(count >= 40, f"{kind}: {count} changes of keys")


def a_conversation_goes_on_through_changes_of_keys(t):
    """Heartbeats every 10 ms in both directions of the control connection, each of which may find new keys due."""
    log = {**os.environ, "GNUTLS_DEBUG_LEVEL": "4"}
    answer = t.tool.run("demo", "--ram", "32M", "--dirty-rate", "0", "--channels", "1", "--max-bandwidth", "8M", "--tls",
                        "--x-tls-renew", "1", "--heartbeat-interval", "10ms", "--peer-timeout", "2s", "--json", env=log)
    count = renewals(answer)
    t.expect(answer.code == 0 and (answer.json or {}).get("verified") is True and not answer.errors, "verified", answer)
    t.expect(count >= 40, f"{count} changes of keys, of three directions that speak")


CASES = [proves_a_good_migration, finds_a_planted_fault, a_dump_is_the_file_that_was_sent, keys_change_all_the_time,
         a_conversation_goes_on_through_changes_of_keys]
