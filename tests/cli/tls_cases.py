"""TLS between `send` and `recv`: the TLS cases of QEMU's migration tests, credentials of every bad kind, and what each side
says. Whoever is refused costs the listener nothing: it serves the next source."""
import os
import time

import credentials

SMALL = ["--guest", "idle", "--ram", "4M"]
SAFE = "runs on at the source"
QUICK = 10  # seconds; a refusal takes no second, and nobody waits for connect-timeout, which is set to more


def creds(directory):
    return ["--tls-creds", directory]


def send(t, uri, *words, **how):
    return t.tool.run("send", uri or "tcp:127.0.0.1:1", *SMALL, "--connect-timeout", "40s", *words, **how)


def serves(t, receiver, uri, words, name):
    """The source is served by a listener that was not disturbed, which then ends."""
    sent = send(t, uri, *words, "--json")
    receiver.signal()
    got = receiver.end()
    secured = [channel["tls-version"] for channel in (sent.json or {}).get("channels", [{"tls-version": None}])]
    t.expect(sent.code == 0 and not sent.errors and got.code == 0 and not got.errors, name, sent, got)
    return secured


def allowed(t, name, there, here, uri="tcp:127.0.0.1:0", host=None):
    """A migration between these words of the two sides; host: what the source calls the destination instead."""
    receiver, uri = t.tool.recv("--discard", *there, uri=uri)
    if host and uri:
        uri = uri.replace("127.0.0.1", host)
    secured = serves(t, receiver, uri, here, name)
    t.expect(secured == ["TLS1.3"] * len(secured), f"{name}: inside TLS 1.3, {secured}")


def refused(t, name, there, here, said, warned, friend, uri="tcp:127.0.0.1:0"):
    """The source fails with `said`, the destination warns with `warned`, and then serves the source with words `friend`."""
    receiver, uri = t.tool.recv("--discard", *there, uri=uri)
    if not t.expect(uri, f"{name}: the destination listens", *([] if uri else [receiver.end()])):
        return
    begin = time.monotonic()
    sent = send(t, uri, *here)
    took = time.monotonic() - begin
    t.expect(sent.code == 1 and len(sent.errors) == 1 and said in sent.errors[0] and SAFE in sent.errors[0],
             f"{name}: the source fails, {said!r}", sent)
    t.expect(took < QUICK, f"{name}: at once, not after {took:.1f} s")
    t.expect(receiver.wait_for(r"warning: turned away \S+( \S+)?: [^\n]*\n", 5), f"{name}: the destination warns")
    lines = [line for line in list(receiver.err) if "warning: turned away" in line]
    t.expect(lines and all(warned in line for line in lines), f"{name}: {warned!r}", *lines)
    serves(t, receiver, uri, friend, f"{name}: the next source is served")


# ---- pre-shared keys ----

def of_equal_keys_succeeds(t):
    made = credentials.Made(t)
    for channels in ("1", "4"):
        allowed(t, f"{channels} channels", creds(made.psk()), [*creds(made.psk()), "--channels", channels])
    other = made.psk("other", "operator")
    allowed(t, "another user", creds(other), [*creds(other), "--tls-username", "operator"])
    allowed(t, "over unix", creds(made.psk()), creds(made.psk()), uri=f"unix:{t.scratch}/socket")


def of_different_keys_fails(t):
    made = credentials.Made(t)
    key, other = creds(made.psk()), made.psk("other")
    for channels in ("1", "4"):
        refused(t, f"{channels} channels", key, [*creds(other), "--channels", channels], "compare keys.psk", "keys.psk", key)
    stranger = made.psk("stranger", "stranger")
    refused(t, "an unknown user", key, [*creds(stranger), "--tls-username", "stranger"], "keys.psk", "keys.psk", key)


def of_keys_and_certificates_fails(t):
    made = credentials.Made(t)
    key, x509 = creds(made.psk()), creds(made.x509())
    for name, there, here in (("a key to certificates", x509, key), ("certificates to a key", key, x509)):
        refused(t, name, there, here, "compare tls-creds", "compare tls-creds", there)


# ---- one side alone ----

def on_one_side_alone_fails_at_once(t):
    made = credentials.Made(t)
    for name, protected in (("x509", creds(made.x509())), ("psk", creds(made.psk()))):
        for uri in ("tcp:127.0.0.1:0", f"unix:{t.scratch}/socket"):
            override = ["--tls-hostname", "localhost"] if uri.startswith("unix") else []
            where = f"{name} over {uri.split(':')[0]}"
            refused(t, f"{where}, none at the source", protected, [], "this side has no tls-creds", "does not speak TLS",
                    protected + override, uri)
            refused(t, f"{where}, none at the destination", [], protected + override, "does not speak TLS: set tls-creds",
                    "the destination has no tls-creds", [], uri)


# ---- whose certificate ----

def verifies_the_destination_s_name(t):
    made = credentials.Made(t)
    default = creds(made.x509())
    allowed(t, "default host", default, default)
    allowed(t, "default host, by name", default, default, host="localhost")
    other = creds(made.x509("other", "qemu.example"))
    override = [*other, "--tls-hostname", "qemu.example"]
    allowed(t, "override host", other, override)
    allowed(t, "override host over 4 channels", other, [*override, "--channels", "4"])
    for channels in ("1", "4"):
        refused(t, f"mismatch host, {channels} channels", other, [*other, "--channels", channels],
                "is for qemu.example, not for 127.0.0.1", "bad", override)
    refused(t, "mismatch of the override", default, [*default, "--tls-hostname", "elsewhere.example"],
            "not for elsewhere.example", "bad", default)
    refused(t, "set back", other, [*override, "--tls-hostname", ""], "is for qemu.example, not for 127.0.0.1", "bad",
            override)


def wants_a_name_where_the_address_has_none(t):
    made = credentials.Made(t)
    words, uri = creds(made.x509()), f"unix:{t.scratch}/socket"
    answer = send(t, uri, *words)
    t.expect(answer.code == 1 and len(answer.errors) == 1 and "set tls-hostname" in answer.errors[0],
             "unix, no host name: refused before anything is connected", answer)
    allowed(t, "unix, override host", words, [*words, "--tls-hostname", "localhost"], uri=uri)
    refused(t, "unix, mismatch host", words, [*words, "--tls-hostname", "elsewhere.example"], "not for elsewhere.example",
            "bad", [*words, "--tls-hostname", "localhost"], uri)


def takes_clients_of_its_authority_alone(t):
    made = credentials.Made(t)
    ours = made.x509()
    friendly = made.x509("friendly", "192.0.2.7", "friend", of=ours)
    allowed(t, "friendly client", creds(ours), creds(friendly))
    theirs = made.x509("theirs")
    refused(t, "a stranger on both sides", creds(ours), creds(theirs), "not signed by an authority of ca-cert.pem",
            "see its error", creds(ours))
    hostile = made.copy(theirs, "hostile")
    with open(hostile / "ca-cert.pem", "ab") as trusted:  # it trusts us; we do not trust it
        trusted.write((ours / "ca-cert.pem").read_bytes())
    for channels in ("1", "4"):
        refused(t, f"hostile client, {channels} channels", creds(ours), [*creds(hostile), "--channels", channels],
                "does not accept this side's client-cert.pem", "not signed by an authority of ca-cert.pem", creds(ours))


def lets_anonymous_clients_in_on_request(t):
    made = credentials.Made(t)
    ours = made.x509()
    anonymous = creds(made.copy(ours, "anonymous", without=["client", "server"]))
    for channels in ("1", "4"):
        allowed(t, f"allowed, {channels} channels", [*creds(ours), "--tls-verify-peer", "off"],
                [*anonymous, "--channels", channels])
        refused(t, f"rejected, {channels} channels", creds(ours), [*anonymous, "--channels", channels],
                "client-cert.pem", "shows no certificate, and tls-verify-peer is on", creds(ours))
    refused(t, "rejected by tls-authz", [*creds(ours), "--tls-verify-peer", "off", "--tls-authz", "CN=here"], anonymous,
            "client-cert.pem", "no name that tls-authz could allow", creds(ours))


def authorizes_by_distinguished_name(t):
    made = credentials.Made(t)
    ours = made.x509()
    other = creds(made.x509("other", client="mover-7", of=ours))
    list_file = t.scratch / "allowed"
    list_file.write_text("# hosts that may migrate to us\nCN=mover-*\n")
    for name, authz in (("match", "CN=mover-7"), ("second of a list", "CN=elsewhere;CN=mover-7"), ("wildcard", "CN=mover-*"),
                        ("file", f"file:{list_file}"), ("set back", "")):
        allowed(t, name, [*creds(ours), "--tls-authz", authz], other)
    for name, authz in (("no match", "CN=here"), ("wildcard", "CN=mov?r*8;CN=here"), ("file", f"file:{list_file}")):
        friend, stranger = (other, creds(ours)) if name == "file" else (creds(ours), other)
        refused(t, f"{name}: a stranger", [*creds(ours), "--tls-authz", authz], stranger, "tls-authz does not list",
                "is not in tls-authz", friend)
    answer = t.tool.run("recv", "tcp:127.0.0.1:0", *creds(ours), "--tls-authz", f"file:{t.scratch}/absent")
    t.expect(answer.code == 2 and len(answer.errors) == 1 and str(t.scratch / "absent") in answer.errors[0],
             "a file that is not there is named", answer)


def knows_what_was_revoked(t):
    made = credentials.Made(t)
    ours = made.x509()
    lost = made.x509("lost", client="lost", of=ours)
    allowed(t, "before", creds(ours), creds(lost))
    made.pki(ours, "--revoke", lost / "client-cert.pem")
    refused(t, "a source", creds(ours), creds(lost), "was revoked", "is revoked by ca-crl.pem", creds(ours))
    made.pki(ours, "--revoke", lost / "server-cert.pem")
    refused(t, "a destination", creds(lost), creds(ours), "is revoked by ca-crl.pem", "was revoked", creds(lost))


# ---- credentials that nobody should use ----

SIDES = (("send", "client", SMALL, 1), ("recv", "server", [], 2))  # a source has a guest that goes on, and fails


def either_refuses(t, name, words, *said, uri="tcp:127.0.0.1:1"):
    """Each side, before it connects or listens; KIND in what is said is the kind of its own certificate."""
    for side, kind, more, code in SIDES:
        answer = t.tool.run(side, uri, *more, *words)
        told = [text.replace("KIND", kind) for text in said]
        t.expect(answer.code == code and len(answer.errors) == 1 and all(text in answer.errors[0] for text in told),
                 f"{name}, {side}: {', '.join(said)}", answer)


def refuses_certificates_out_of_their_time(t):
    if not credentials.certtool_is_here():
        return t.skip("expired, not yet valid, wrong purpose", "certtool is not here")
    made = credentials.Made(t)
    kinds = {
        "expired": ('activation_date = "2020-01-01"\nexpiration_date = "2020-02-01"', "expired on 2020-02-01", {}),
        "not yet valid": ('activation_date = "2090-01-01"\nexpiration_date = "2091-01-01"', "not valid before 2090-01-01", {}),
        "wrong purpose": ("expiration_days = 9", "was not made for a TLS KIND", {"server": "client", "client": "server"}),
    }
    for name, (template, cause, swapped) in kinds.items():
        folder = made.copy(made.x509(), name.replace(" ", "-"))
        for kind in ("server", "client"):
            made.issue(folder, kind, f"{template}\ntls_www_{swapped.get(kind, kind)}")
        either_refuses(t, name, creds(folder), f"{folder}/KIND-cert.pem", cause)


def refuses_keys_that_others_can_read(t):
    made = credentials.Made(t)
    open_x509 = made.copy(made.x509(), "open-x509")
    for name in ("server-key.pem", "client-key.pem"):
        os.chmod(open_x509 / name, 0o644)
    either_refuses(t, "x509", creds(open_x509), f"{open_x509}/KIND-key.pem", "mode 0644", "chmod 600")
    open_psk = made.copy(made.psk(), "open-psk")
    os.chmod(open_psk / "keys.psk", 0o640)
    either_refuses(t, "psk", creds(open_psk), f"{open_psk}/keys.psk", "mode 0640", "chmod 600")


def names_what_a_directory_lacks(t):
    made = credentials.Made(t)
    empty = t.scratch / "empty"
    empty.mkdir()
    either_refuses(t, "an empty one", creds(empty), "holds no TLS credentials", str(empty))
    either_refuses(t, "none", creds(t.scratch / "absent"), f"{t.scratch}/absent", "No such file")
    either_refuses(t, "no authority", creds(made.copy(made.x509(), "orphans", without=["ca-cert"])), "orphans/ca-cert.pem")
    mixed = made.copy(made.x509(), "mixed")
    credentials.lay(mixed, "keys.psk", made.psk() / "keys.psk")
    either_refuses(t, "both kinds", creds(mixed), "leave one kind", "keys.psk")


def can_be_demanded(t):
    made = credentials.Made(t)
    words, required = creds(made.x509()), ["--tls-required", "on"]
    either_refuses(t, "without tls-creds", required, "set tls-creds")
    either_refuses(t, "tls-creds set back", [*words, "--tls-creds", "", *required], "set tls-creds")
    either_refuses(t, "over rdma:", words + required, "pages over rdma: are not encrypted", uri="rdma:127.0.0.1:1")
    allowed(t, "with tls-creds", words + required, words + required)


def is_off_again_by_empty_text(t):
    made = credentials.Made(t)
    off = [*creds(made.x509()), "--tls-creds", ""]
    receiver, uri = t.tool.recv("--discard", *off)
    secured = serves(t, receiver, uri, off, "both sides")
    t.expect(secured == [None] * len(secured), "nothing is encrypted")


def authz_goes_with_certificates_alone(t):
    made = credentials.Made(t)
    answer = t.tool.run("recv", "tcp:127.0.0.1:1", *creds(made.psk()), "--tls-authz", "CN=here")
    t.expect(answer.code == 2 and len(answer.errors) == 1 and "tls-authz looks at certificates" in answer.errors[0],
             "pre-shared keys", answer)


CASES = [of_equal_keys_succeeds, of_different_keys_fails, of_keys_and_certificates_fails, on_one_side_alone_fails_at_once,
         verifies_the_destination_s_name, wants_a_name_where_the_address_has_none, takes_clients_of_its_authority_alone,
         lets_anonymous_clients_in_on_request, authorizes_by_distinguished_name, knows_what_was_revoked,
         refuses_certificates_out_of_their_time, refuses_keys_that_others_can_read, names_what_a_directory_lacks,
         can_be_demanded, is_off_again_by_empty_text, authz_goes_with_certificates_alone]
