"""Directories for tls-creds: made by `godwit pki`, changed by hand, or by certtool where godwit makes nothing so bad."""
import os
import shutil
import subprocess
from pathlib import Path


class Made:
    """Makes them in one folder. A name that was used names the same directory again."""

    def __init__(self, t):
        self.t, self.folder = t, t.scratch

    def pki(self, directory, *words):
        answer = self.t.tool.run("pki", directory, *words)
        if answer.code != 0:
            raise RuntimeError("\n".join(answer.lines()))
        return directory

    def x509(self, name="x509", host="127.0.0.1,localhost", client="here", of=None):
        """Of an authority of its own, or of that which was made for another directory."""
        directory = self.folder / name
        if directory.exists():
            return directory
        return self.pki(directory, "--host", host, "--client", client, *(["--ca", of] if of else []))

    def psk(self, name="psk", user="qemu"):
        directory = self.folder / name
        return directory if directory.exists() else self.pki(directory, "--psk", user)

    def copy(self, directory, name, without=()):
        """without: the beginnings of names that are left out."""
        copy = self.folder / name
        shutil.copytree(directory, copy)
        for path in list(copy.iterdir()):
            if path.name.startswith(tuple(without)):
                path.unlink()
        return copy

    def issue(self, directory, kind, template):
        """A certificate by the directory's authority that godwit does not make: template is certtool's."""
        info = directory / "template"
        info.write_text(f"cn = by-certtool\nip_address = 127.0.0.1\nsigning_key\n{template}\n")
        key, certificate = directory / f"{kind}-key.pem", directory / f"{kind}-cert.pem"
        run("certtool", "--generate-privkey", "--key-type", "ecdsa", "--curve", "secp256r1", "--no-text", "--outfile", key)
        os.chmod(key, 0o600)
        run("certtool", "--generate-certificate", "--load-privkey", key, "--load-ca-certificate", directory / "ca-cert.pem",
            "--load-ca-privkey", directory / "ca-key.pem", "--template", info, "--outfile", certificate)
        info.unlink()
        return directory


def certtool_is_here():
    return shutil.which("certtool") is not None


def run(*words):
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}\n{done.stdout}")


def lay(directory, name, file):
    """file becomes the directory's file of that name."""
    shutil.copy(file, Path(directory) / name)
