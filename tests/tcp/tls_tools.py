#!/usr/bin/env python3
"""Certificates made by GnuTLS certtool and by openssl, as QEMU's and libvirt's documentation tells, and keys by psktool:
they load, and two sides that have them shake hands.

    tls_tools.py TLS_MEET
"""
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "runner"))
import tap  # noqa: E402

CA_INFO = "cn = Example authority\nca\ncert_signing_key\n"
SERVER_INFO = """organization = Example
cn = destination.example
dns_name = destination.example
dns_name = localhost
ip_address = 127.0.0.1
tls_www_server
encryption_key
signing_key
"""
CLIENT_INFO = "country = GB\norganization = Example\ncn = source.example\ntls_www_client\nencryption_key\nsigning_key\n"
CRL_INFO = "crl_next_update = 43\ncrl_number = 1\n"

SERVER_EXTENSIONS = """basicConstraints = CA:FALSE
keyUsage = digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectAltName = DNS:destination.example, DNS:localhost, IP:127.0.0.1
"""
CLIENT_EXTENSIONS = "basicConstraints = CA:FALSE\nkeyUsage = digitalSignature\nextendedKeyUsage = clientAuth\n"
CA_CONFIG = "[ca]\ndefault_ca = a\n[a]\ndatabase = index.txt\ncrlnumber = number\ndefault_md = sha256\ndefault_crl_days = 30\n"


class Folder:
    """A directory in which tools run. What one of them says when it fails ends the test program."""

    def __init__(self, root, name):
        self.path = Path(root, name)
        self.path.mkdir(mode=0o700)

    def write(self, name, text):
        (self.path / name).write_text(text)

    def run(self, *words):
        answer = subprocess.run(words, cwd=self.path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, errors="replace", timeout=100)
        if answer.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {answer.stdout.strip()}")
        return answer.stdout

    def lock(self):
        for key in self.path.glob("*-key.pem"):
            key.chmod(0o600)


def certtool_set(folder):
    for name, info in (("ca", CA_INFO), ("server", SERVER_INFO), ("client", CLIENT_INFO)):
        folder.write(f"{name}.info", info)
        folder.write(f"{name}-key.pem", folder.run("certtool", "--generate-privkey").partition("\f")[0])
        how = ["--generate-self-signed"] if name == "ca" else \
            ["--generate-certificate", "--load-ca-certificate", "ca-cert.pem", "--load-ca-privkey", "ca-key.pem"]
        folder.run("certtool", *how, "--load-privkey", f"{name}-key.pem", "--template", f"{name}.info",
                   "--outfile", f"{name}-cert.pem")
    folder.lock()


def openssl_set(folder, *new_key):
    """new_key: the words of openssl that make a key, followed by the name of its file."""
    for name in ("ca", "server", "client"):
        folder.run("openssl", *new_key, f"{name}-key.pem")
    folder.run("openssl", "req", "-x509", "-new", "-key", "ca-key.pem", "-subj", "/CN=Example authority", "-days", "30",
               "-addext", "keyUsage = critical, keyCertSign, cRLSign", "-out", "ca-cert.pem")
    for name, subject, extensions in (("server", "/O=Example/CN=destination.example", SERVER_EXTENSIONS),
                                      ("client", "/C=GB/O=Example/CN=source.example", CLIENT_EXTENSIONS)):
        folder.write(f"{name}.ext", extensions)
        folder.run("openssl", "req", "-new", "-key", f"{name}-key.pem", "-subj", subject, "-out", f"{name}.csr")
        folder.run("openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem",
                   "-CAcreateserial", "-days", "30", "-sha256", "-extfile", f"{name}.ext", "-out", f"{name}-cert.pem")
    folder.lock()


def certtool_revokes(folder):
    folder.write("crl.info", CRL_INFO)
    folder.run("certtool", "--generate-crl", "--load-ca-privkey", "ca-key.pem", "--load-ca-certificate", "ca-cert.pem",
               "--load-certificate", "client-cert.pem", "--template", "crl.info", "--outfile", "ca-crl.pem")


def openssl_revokes(folder):
    folder.write("ca.conf", CA_CONFIG)
    folder.write("index.txt", "")
    folder.write("number", "01\n")
    words = ["openssl", "ca", "-config", "ca.conf", "-cert", "ca-cert.pem", "-keyfile", "ca-key.pem"]
    folder.run(*words, "-revoke", "client-cert.pem")
    folder.run(*words, "-gencrl", "-out", "ca-crl.pem")


class Tests:
    def __init__(self, meet, root):
        self.t = tap.Writer()
        self.meet = meet
        self.root = root

    def expect(self, name, client, server, host, code, words):
        answer = subprocess.run([self.meet, client.path, server.path, host], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        self.t.ok(answer.returncode == code and words in answer.stdout, name, [f"exit {answer.returncode}", answer.stdout])

    def a_set(self, name, make, revoke):
        folder = Folder(self.root, name)
        make(folder)
        for host in ("localhost", "destination.example", "127.0.0.1"):
            self.expect(f"{name}: both sides meet at {host}", folder, folder, host, 0, "server: TLS1.3")
        self.expect(f"{name}: another host is refused", folder, folder, "elsewhere.example", 1,
                    "for destination.example, localhost, 127.0.0.1, not for elsewhere.example")
        server = self.copy(folder, name + ", revoked")
        revoke(server)
        self.expect(f"{name}: a revoked client is refused", folder, server, "localhost", 1,
                    "CN=source.example\" is revoked by ca-crl.pem")
        return folder

    def copy(self, folder, name):
        copy = Folder(self.root, name)
        for path in folder.path.iterdir():
            shutil.copy2(path, copy.path)
        return copy

    def run(self):
        gnutls = self.a_set("certtool", certtool_set, certtool_revokes)
        openssl = self.a_set("openssl, RSA", lambda folder: openssl_set(folder, "genrsa", "-out"), openssl_revokes)
        self.a_set("openssl, ECDSA with its parameters before the key",
                   lambda folder: openssl_set(folder, "ecparam", "-name", "prime256v1", "-genkey", "-out"), openssl_revokes)
        self.a_set("openssl, RSA of the old form", lambda folder: openssl_set(folder, "genrsa", "-traditional", "-out"),
                   certtool_revokes)
        self.a_set("openssl, Ed25519", lambda folder: openssl_set(folder, "genpkey", "-algorithm", "ed25519", "-out"),
                   openssl_revokes)
        self.expect("a server of certtool's authority is refused by a client of openssl's", openssl, gnutls, "localhost", 1,
                    "client: the destination's certificate")
        self.encrypted_keys(openssl)
        self.pre_shared_keys()
        return self.t.done()

    def encrypted_keys(self, folder):
        for form, words in (("PKCS#8", []), ("the old form", ["-traditional"])):
            copy = self.copy(folder, "encrypted, " + form)
            copy.run("openssl", "pkey", *words, "-in", "client-key.pem", "-aes256", "-passout", "pass:secret", "-out", "new")
            (copy.path / "new").chmod(0o600)
            (copy.path / "new").rename(copy.path / "client-key.pem")
            self.expect(f"a key encrypted by openssl ({form}) is told so", copy, folder, "localhost", 1,
                        "client-key.pem is encrypted")

    def pre_shared_keys(self):
        folder = Folder(self.root, "psktool")
        for user in ("alice", "qemu"):
            folder.run("psktool", "-u", user, "-p", "keys.psk")
        (folder.path / "keys.psk").chmod(0o600)
        self.expect("keys of psktool: both sides meet", folder, folder, "localhost", 0, "server: TLS1.3 AES-128-GCM")


def main(meet):
    with tempfile.TemporaryDirectory(prefix="godwit-tools-") as root:
        tests = Tests(meet, root)
        missing = [tool for tool in ("certtool", "psktool", "openssl") if shutil.which(tool) is None]
        if missing:
            tests.t.skip("certificates made by tools", f"not installed: {', '.join(missing)}")
            return tests.t.done()
        return tests.run()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
