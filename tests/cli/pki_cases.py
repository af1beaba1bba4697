"""Certificates made by the tool, as openssl, certtool and QEMU see them; and what is refused."""
import os
import shutil
import subprocess

SERVER, CLIENT = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"
SET = {"ca-cert.pem", "ca-key.pem", "server-cert.pem", "server-key.pem", "client-cert.pem", "client-key.pem"}


def call(*words):
    """(did it succeed, what it said)"""
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60)
    return done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}"


def made(answer):
    return answer.code == 0 and answer.err == ""


def openssl_accepts(folder, name, purpose, *more):
    return call("openssl", "verify", "-CAfile", folder / "ca-cert.pem", "-purpose", purpose, *more, folder / name)


def certtool_accepts(folder, name, purpose, *more):
    return call("certtool", "--verify", "--load-ca-certificate", folder / "ca-cert.pem", "--verify-purpose", purpose,
                *more, "--verify-profile", "high", "--infile", folder / name)


def two_hosts_of_one_authority_are_accepted(t):
    first, second = t.scratch / "a", t.scratch / "b"
    answer = t.tool.run("pki", first, "--host", "a,a.example")
    t.expect(made(answer) and "new authority" in answer.out and set(os.listdir(first)) == SET, "a whole set", answer)
    answer = t.tool.run("pki", second, "--ca", first, "--host", "b,192.0.2.7", "--client", "b-moves", "--days", "30")
    t.expect(made(answer) and set(os.listdir(second)) == SET - {"ca-key.pem"}, "no key of the authority", answer)
    t.expect("CN=b-moves" in answer.out and "b,192.0.2.7" in answer.out, "what was made is told", answer)
    verdicts = []
    if shutil.which("openssl"):
        verdicts += [
            ("openssl: server", True, openssl_accepts(second, "server-cert.pem", "sslserver", "-verify_ip", "192.0.2.7")),
            ("openssl: client", True, openssl_accepts(second, "client-cert.pem", "sslclient", "-x509_strict")),
            ("openssl: name", True, openssl_accepts(first, "server-cert.pem", "sslserver", "-verify_hostname", "a.example")),
            ("openssl: another name", False,
             openssl_accepts(second, "server-cert.pem", "sslserver", "-verify_hostname", "a")),
            ("openssl: a client is no server", False, openssl_accepts(second, "client-cert.pem", "sslserver")),
            ("openssl: a server is no client", False, openssl_accepts(second, "server-cert.pem", "sslclient")),
            ("openssl: key", True, call("openssl", "pkey", "-in", second / "server-key.pem", "-noout", "-check"))]
    else:
        t.skip("openssl verify", "openssl is not here")
    if shutil.which("certtool"):
        verdicts += [
            ("certtool: server", True,
             certtool_accepts(second, "server-cert.pem", SERVER, "--verify-hostname", "b")),
            ("certtool: client", True, certtool_accepts(second, "client-cert.pem", CLIENT)),
            ("certtool: a client is no server", False, certtool_accepts(second, "client-cert.pem", SERVER))]
    else:
        t.skip("certtool --verify", "certtool is not here")
    for name, expected, (good, text) in verdicts:
        t.expect(good == expected, name, text)


def qemu_takes_the_directories(t):
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu:
        return t.skip("tls-creds-x509, tls-creds-psk", "qemu-system-x86_64 is not here")
    t.tool.run("pki", t.scratch / "x509", "--host", "a")
    t.tool.run("pki", t.scratch / "psk", "--psk", "qemu")
    for kind in ("x509", "psk"):
        for endpoint in ("server", "client"):
            done = subprocess.run([qemu, "-M", "none", "-S", "-display", "none", "-nodefaults", "-monitor", "stdio", "-object",
                                   f"tls-creds-{kind},id=t,dir={t.scratch / kind},endpoint={endpoint}"],
                                  input="quit\n", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
            t.expect(done.returncode == 0 and done.stderr == "", f"{kind}, {endpoint}", done.stderr)


def authorities_of_others_sign(t):
    """With another kind of key, and without a key usage."""
    if not shutil.which("openssl"):
        return t.skip("an authority made by openssl", "openssl is not here")
    for name, algorithm in (("rsa", ["rsa:3072"]), ("p384", ["ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"]),
                            ("ed25519", ["ed25519"])):
        folder, host = t.scratch / name, t.scratch / f"{name}-host"
        folder.mkdir()
        good, text = call("openssl", "req", "-x509", "-newkey", *algorithm, "-nodes", "-subj", "/O=Example/CN=Root", "-days", "9",
                          "-keyout", folder / "ca-key.pem", "-out", folder / "ca-cert.pem")
        os.chmod(folder / "ca-key.pem", 0o600)
        t.expect(good, f"{name}: made", text)
        answer = t.tool.run("pki", host, "--ca", folder, "--host", "h")
        t.expect(made(answer) and "the authority 'Root'" in answer.out, f"{name}: it signs", answer)
        good, text = openssl_accepts(host, "server-cert.pem", "sslserver", "-verify_hostname", "h")
        t.expect(good, f"{name}: openssl accepts", text)
        if shutil.which("certtool"):
            good, text = certtool_accepts(host, "client-cert.pem", CLIENT)
            t.expect(good, f"{name}: certtool accepts", text)


def a_certificate_can_be_revoked(t):
    authority, host, later = t.scratch / "a", t.scratch / "b", t.scratch / "c"
    t.tool.run("pki", authority, "--host", "a")
    t.tool.run("pki", host, "--host", "b", "--ca", authority)
    for name in ("server", "client"):
        answer = t.tool.run("pki", authority, "--revoke", host / f"{name}-cert.pem")
        t.expect(made(answer) and "ca-crl.pem" in answer.out, f"{name}: exit 0", answer)
    answer = t.tool.run("pki", later, "--host", "c", "--ca", authority)
    t.expect(made(answer) and set(os.listdir(later)) == SET - {"ca-key.pem"} | {"ca-crl.pem"}, "a later set has the list", answer)
    if not shutil.which("openssl"):
        return t.skip("openssl verify -crl_check", "openssl is not here")
    check = ("-crl_check", "-CRLfile", later / "ca-crl.pem")
    for name, purpose in (("server", "sslserver"), ("client", "sslclient")):
        good, text = openssl_accepts(host, f"{name}-cert.pem", purpose, *check)
        t.expect(not good and "certificate revoked" in text, f"openssl: the {name} is revoked", text)
        good, text = openssl_accepts(later, f"{name}-cert.pem", purpose, *check)
        t.expect(good, f"openssl: another {name} is not", text)


def lists_of_others_are_extended(t):
    """Of certtool, which numbers lists in its own way."""
    if not shutil.which("certtool") or not shutil.which("openssl"):
        return t.skip("a list made by certtool", "certtool or openssl is not here")
    authority = t.scratch / "a"
    t.tool.run("pki", authority, "--host", "a")
    t.tool.run("pki", t.scratch / "b", "--host", "b", "--ca", authority)
    (t.scratch / "template").write_text("crl_next_update = 30\n")
    good, text = call("certtool", "--generate-crl", "--load-ca-privkey", authority / "ca-key.pem", "--load-ca-certificate",
                      authority / "ca-cert.pem", "--load-certificate", t.scratch / "b/client-cert.pem", "--template",
                      t.scratch / "template", "--outfile", authority / "ca-crl.pem")
    t.expect(good, "made", text)
    answer = t.tool.run("pki", authority, "--revoke", t.scratch / "b/server-cert.pem")
    t.expect(made(answer), "extended", answer)
    for name, purpose in (("server", "sslserver"), ("client", "sslclient")):
        good, text = openssl_accepts(t.scratch / "b", f"{name}-cert.pem", purpose, "-crl_check", "-CRLfile",
                                     authority / "ca-crl.pem")
        t.expect(not good and "certificate revoked" in text, f"the {name} is revoked", text)


def what_is_there_is_not_replaced(t):
    folder = t.scratch / "a"
    t.tool.run("pki", folder, "--host", "a")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    answer = t.tool.run("pki", folder, "--host", "b")
    t.expect(answer.code == 1 and answer.out == "" and len(answer.errors) == 1 and "is not replaced" in answer.err,
             "one line, exit 1", answer)
    t.expect(before == {path.name: path.read_bytes() for path in folder.iterdir()}, "all is as it was", answer)


def a_shared_key_can_be_made(t):
    answer = t.tool.run("pki", t.scratch / "k", "--psk", "qemu")
    t.expect(made(answer) and os.listdir(t.scratch / "k") == ["keys.psk"], "keys.psk and nothing else", answer)
    t.expect((t.scratch / "k/keys.psk").stat().st_mode & 0o777 == 0o600, "its owner's alone", answer)


def wrong_requests_leave_nothing(t):
    folder = t.scratch / "a"
    for words, remedy in ((["--host", "a:4444"], "NAME|IP"), (["--client", "a,b"], "client: 'a,b'"),
                          (["--ca", t.scratch / "no"], "no/ca-cert.pem"), (["--psk", "a:b"], "user: 'a:b'")):
        answer = t.tool.run("pki", folder, *words)
        t.expect(answer.code == 2 and answer.out == "" and len(answer.errors) == 1 and remedy in answer.err,
                 f"{words[0]}: one line, exit 2", answer)
    t.expect(not folder.exists(), "no directory")


CASES = [two_hosts_of_one_authority_are_accepted, qemu_takes_the_directories, authorities_of_others_sign,
         a_certificate_can_be_revoked, lists_of_others_are_extended, what_is_there_is_not_replaced, a_shared_key_can_be_made, wrong_requests_leave_nothing]
