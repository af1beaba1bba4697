"""The list of RDMA devices, on a machine that has some and on one that has none."""
import os
import shutil
import subprocess

FIELDS = {"name", "driver", "node-type", "fw-ver", "node-guid", "numa-node", "max-qp", "max-qp-wr", "max-sge",
          "max-cqe", "max-mr", "max-mr-size", "max-qp-rd-atom", "odp-caps", "ports", "hints"}


def all_devices_are_listed_or_the_lack_is_explained(t):
    text, answer = t.tool.run("devices"), t.tool.run("devices", "--json")
    listed = answer.json or {}
    t.expect({"devices", "memlock", "hints"} == listed.keys(), "--json prints one object", answer)
    devices, hints = listed.get("devices", []), listed.get("hints", [])
    t.expect(all(FIELDS == device.keys() for device in devices), "each device has every field", answer)
    if os.path.isdir("/sys/class/infiniband") and os.listdir("/sys/class/infiniband"):
        t.expect(text.code == 0 and answer.code == 0 and text.err == "" and devices, "exit 0", text, answer)
        t.expect(all(f"{device['name']}\n" in text.out for device in devices), "each device has its lines", text)
        return
    t.expect(text.code == 1 and answer.code == 1, "none: exit 1", text, answer)
    t.expect(text.out == "" and len(text.errors) == 1, "none: one line", text)
    t.expect("/sys/class/infiniband" in text.err, "none: it says what is missing", text)
    t.expect("modprobe -a rdma_rxe rdma_ucm; rdma link add rxe0 type rxe netdev" in text.err, "none: and how to get one", text)
    t.expect(devices == [] and hints[:1] == [text.errors[0].removeprefix("godwit: ")],
             "none: the object has an empty list and the same line", answer)


def a_full_disk_is_an_error(t):
    with open("/dev/full", "w") as full:
        done = subprocess.run([t.tool.path, "devices", "--json"], stdout=full, stderr=subprocess.PIPE, text=True)
    t.expect(done.returncode == 1 and "could not be written" in done.stderr, "it says so", done.stderr)


def a_small_memlock_limit_is_a_hint(t):
    """For a user without CAP_IPC_LOCK, to whom the limit applies."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        return t.skip("a limit of 64 KiB", "setpriv is not here to drop CAP_IPC_LOCK")
    drop = ["setpriv", "--inh-caps=-ipc_lock", "--bounding-set=-ipc_lock"] if os.geteuid() == 0 else []
    done = subprocess.run([*drop, "sh", "-c", 'ulimit -l 64 && exec "$0" devices --json', t.tool.path],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    t.expect('"limit":65536,"cap-ipc-lock":false' in done.stdout and "LimitMEMLOCK=infinity" in done.stdout,
             "a limit of 64 KiB", done.stdout + done.stderr)


CASES = [all_devices_are_listed_or_the_lack_is_explained, a_full_disk_is_an_error, a_small_memlock_limit_is_a_hint]
