"""Debian's kernel: fetched once as a package, through the host's own apt and without privileges, and kept unpacked.

    CACHE/linux-image-6.1.0-NN-amd64/boot/vmlinux-VERSION, lib/modules/VERSION

It is not installed: that would want root, and a boot loader. The host's own kernel is not used either: it may lack
soft-RoCE (the cloud flavour does), and a test is worth more where everybody's is of the same kernel. Remove the folder
to fetch a newer one.
"""
import fcntl
import lzma
import os
import re
import shutil
import struct
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import host
from host import Unavailable

META = "linux-image-amd64"  # depends on the newest of the generic flavour
# Nothing that a machine of ours can have.
UNUSED = ["sound", "drivers/gpu", "drivers/media", "drivers/net/wireless", "drivers/staging", "drivers/iio"]


@dataclass
class Kernel:
    folder: Path  # of the unpacked package: what `modprobe -d` wants
    version: str  # as of uname -r

    @property
    def image(self):
        return self.folder / "boot" / f"vmlinux-{self.version}"

    @property
    def modules(self):
        return self.folder / "lib" / "modules" / self.version


@contextmanager
def locked(cache):
    """Two of us would fetch, or build, into each other's folder."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = open(cache / "lock", "w")
    except OSError as error:
        raise Unavailable(f"{cache}: {error.strerror}")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find(cache):
    """The newest kernel of the cache, fetched if there is none. Call it with the cache locked."""
    kernels = sorted(cache.glob("linux-image-*"), key=lambda path: path.stat().st_mtime)
    folder = kernels[-1] if kernels else fetch(cache)
    images = list(folder.glob("boot/vmlinux-*"))
    if len(images) != 1:
        raise Unavailable(f"{folder} is no kernel package of Debian: remove it")
    return Kernel(folder, images[0].name.split("-", 1)[1])


def fetch(cache):
    depmod = host.need("depmod", "kmod")
    dpkg = host.need("dpkg-deb", "dpkg")
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache) as work:
        work = Path(work)
        try:
            package = download(work, [])
        except Unavailable:
            # The host has no package lists, or old ones. Lists of our own take no root, and change nothing of the
            # host's.
            package = download_with_new_lists(work)
        unpacked = work / "unpacked"
        host.run(dpkg, "-x", next(work.glob("*.deb")), unpacked)
        for unused in UNUSED:
            for folder in unpacked.glob(f"lib/modules/*/kernel/{unused}"):
                shutil.rmtree(folder)
        for modules in unpacked.glob("lib/modules/*"):
            host.run(depmod, "-b", unpacked, modules.name)
        for packed in unpacked.glob("boot/vmlinuz-*"):
            packed.with_name(packed.name.replace("vmlinuz", "vmlinux")).write_bytes(unpack_image(packed.read_bytes()))
        os.rename(unpacked, cache / package)
        return cache / package


def unpack_image(packed):
    """The ELF file inside a bzImage, which QEMU starts as well (PVH). Under emulation the image takes three seconds to
    unpack itself, which is more than the rest of the boot. Fields: the kernel's Documentation/x86/boot.rst."""
    sectors = packed[0x1F1]  # of set-up code, besides the boot sector
    offset, length = struct.unpack_from("<II", packed, 0x248)
    start = (sectors + 1) * 512 + offset
    try:
        return lzma.LZMADecompressor().decompress(packed[start:start + length])
    except lzma.LZMAError as error:
        raise Unavailable(f"the kernel's image is not packed with xz: {error}")


def download_with_new_lists(work):
    for folder in ("lists/partial", "apt/archives/partial"):
        (work / folder).mkdir(parents=True)
    options = [f"-oDir::State::lists={work / 'lists'}", f"-oDir::Cache={work / 'apt'}"]
    host.run(host.need("apt-get", "apt"), *options, "-oAPT::Sandbox::User=root", "-q", "update")
    return download(work, options)


def download(work, options):
    """The name of the package that is then in `work`."""
    apt_cache = host.need("apt-cache", "apt")
    shown = host.run(apt_cache, *options, "show", "--no-all-versions", META)
    name = re.search(r"^Depends:.*\b(linux-image-[0-9][^\s,]*-amd64)\b", shown, re.M)
    if not name:
        raise Unavailable(f"apt knows no kernel by the name of {META}; it takes Debian's archive")
    host.run(host.need("apt-get", "apt"), *options, "-oAPT::Sandbox::User=root", "-q", "download", name[1], cwd=work)
    return name[1]
