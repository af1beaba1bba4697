"""godwit in a machine: a destination, a source, and what they said. The same questions as tests/cli/tool.py asks."""
import json
import re

# Emulated processors stand still for seconds on a loaded host, and no case is about being that slow.
CALM = ["--connect-timeout", "60s", "--handshake-timeout", "60s", "--peer-timeout", "60s", "--progress-timeout", "60s"]
LIMIT = 240  # seconds for a migration
SAFE = "runs on at the source"


def errors(answer):
    """Lines that report an error; warnings are not errors."""
    return [line for line in answer.err.splitlines()
            if line.startswith("godwit: ") and not line.startswith("godwit: warning: ")]


def report(answer):
    """The object on standard output; empty when there is not exactly one."""
    try:
        value = json.loads(answer.out)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def succeeded(*answers):
    return all(answer.code == 0 and not errors(answer) for answer in answers)


def failed(answer, *words):
    """Exit 1 and one line that has all the words."""
    lines = errors(answer)
    return answer.code == 1 and len(lines) == 1 and all(word in lines[0] for word in words)


def verified(answer):
    found = report(answer)
    return succeeded(answer) and found.get("status") == "completed" and found.get("verified") is True


def demo(machine, *words, **how):
    return machine.godwit("demo", "--transport", "rdma", "--json", *CALM, *words, **{"limit": LIMIT, **how})


def recv(machine, *words, uri=None, **how):
    """A destination that listens: (its Job, the URI to send to). The URI is None when it never got there."""
    uri = uri or f"rdma:{machine.address}:0"
    job = machine.spawn([machine.build / "cli" / "godwit", "recv", uri, *CALM, *words], **how)
    match = job.wait_for(r"listening on (\S+)", 60)
    return job, match and match[1]


def start_send(machine, uri, *words, **how):
    """uri: that of recv(), or None for an answer that fails."""
    return machine.spawn([machine.build / "cli" / "godwit", "send", uri or "rdma:nowhere:0", *CALM, *words], **how)


def send(machine, uri, *words, **how):
    return start_send(machine, uri, *words, **how).wait(LIMIT)


def verbs_objects(machine):
    """{"qp": 1, "mr": 0, ...}: what exists of the device's, in all."""
    return {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", machine.check("rdma resource show"))}


def leaves_no_verbs_object(t, machine, before, name):
    """What was destroyed by a process that ended may take the kernel a moment."""
    text = " ".join(f"{kind} {count}" for kind, count in before.items())
    answer = machine.run(f"for i in $(seq 200); do rdma resource show | grep -q '{text}' && exit 0; sleep 0.1; done; "
                         "rdma resource show; exit 1")
    return t.expect(answer.code == 0, f"{name}: no verbs object is left, {text}", answer)


def packets_sent(machine):
    return int(machine.check("cat /sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts"))
