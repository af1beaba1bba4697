"""A benchmark of which the host boots a virtual machine (tests/vm) and reports, and the measuring goes on inside.

The program starts itself again in the machine, with --inside behind its own words. What that run prints on its standard
output, one JSON object, is what the host gets; its errors are passed on as they come.
"""
import json
import sys
from pathlib import Path

import bench as b

sys.path.insert(0, str(b.ROOT / "tests" / "vm"))
from agent import Lost  # noqa: E402
from host import Unavailable  # noqa: E402
from machine import Machine  # noqa: E402

LIMIT = 4 * 3600  # seconds
MISSING = 77


def measure(bench, memory, rdma=True, more=(), kernel_words=()):
    """What the run inside printed. memory: the machine's, as of QEMU's -m. rdma: whether it has rxe0. more: words for the
    run inside alone."""
    words = [sys.executable, Path(sys.argv[0]).resolve(), *sys.argv[1:], "--inside", "--dir", "/dev/shm",
             "--build", bench.options.build.resolve(), *more]
    try:
        with Machine(memory=memory, rdma=rdma, build=bench.options.build, deadline=LIMIT,
                     kernel_words=kernel_words) as machine:
            said = bytearray()

            def pass_on(data):
                said.extend(data)
                sys.stderr.buffer.write(data)
                sys.stderr.flush()
            answer = machine.spawn(words, err=pass_on).wait(LIMIT)
    except Unavailable as error:
        raise b.Missing(error) from None
    except Lost as error:
        raise b.Failed(error) from None
    if answer.code != 0:
        raise (b.Missing if answer.code == MISSING else b.Failed)(
            (said.decode(errors="replace").splitlines() or [f"status {answer.code}"])[-1])
    return json.loads(answer.out)
