"""One migration by the built tool: `godwit recv` and `godwit send` as two processes."""
import json

from bench import Failed


def listen(bench, *words, prefix=(), uri="tcp:127.0.0.1:0"):
    """A destination that listens: (it, the URI to send to)."""
    child = bench.start(*prefix, bench.program("cli/godwit"), "recv", uri, "--json", *words)
    return child, child.wait_for(r"listening on (\S+)", child.err)[1]


def migrate(bench, memory, channels, receive=(), send=(), inspect=None, uri="tcp:127.0.0.1:0", prefix=()):
    """Moves the file `memory` as an idle guest. seconds: from the first moment at which pages may be sent until the
    destination has said that it runs the guest. inspect(destination's pid) is called while its memory is there still;
    without, user-seconds are those of both processes. prefix: what starts either of them."""
    once = [] if inspect else ["--once"]
    destination, uri = listen(bench, *once, *receive, prefix=prefix, uri=uri)
    source = bench.start(*prefix, bench.program("cli/godwit"), "send", uri, "--json", "--guest", "idle", "--memory-from", memory,
                         "--channels", channels, *send)
    try:
        report = json.loads(source.end())
        if report["status"] != "completed":
            raise Failed(f"godwit: {report.get('error-desc')}")
        result = {"seconds": (report["total-time"] - report["setup-time"]) / 1000,
                  "total-seconds": report["total-time"] / 1000, "downtime-ms": report["downtime"],
                  "transferred": report["ram"]["transferred"], "source-peak": source.usage.ru_maxrss * 1024,
                  "source-cpu": source.usage.ru_utime + source.usage.ru_stime}
        if inspect:
            destination.wait_for(r"\}\s*$", destination.out)
            result["inspected"] = inspect(destination.pid)
        else:
            destination.end()
            result["destination-cpu"] = destination.usage.ru_utime + destination.usage.ru_stime
            result["user-seconds"] = source.usage.ru_utime + destination.usage.ru_utime
        return result
    finally:
        bench.stop(source)
        bench.stop(destination)
