"""What the tool says before it does anything: help, version, usage errors."""
import re

# (arguments, what the one line must contain)
REFUSED = [
    (["dem"], "did you mean 'demo'"),
    (["nonsense"], "--help"),
    (["demo", "--rma", "1G"], "did you mean --ram"),
    (["demo", "--max-bandwith", "1G"], "did you mean --max-bandwidth"),
    (["demo", "--nothing-like-it"], "demo --help"),
    (["demo", "--ram"], "--ram SIZE"),
    (["demo", "--ram", "--json"], "needs a value"),
    (["demo", "--ram="], "needs a value"),
    (["demo", "--ram", "12Q"], "12Q"),
    (["demo", "--ram", "-5"], "-5"),
    (["demo", "--ram", "0"], "at least 4096"),
    (["demo", "--ram", "4097"], "8192"),
    (["demo", "--ram", "99999999999999T"], "ram"),
    (["demo", "--hot-set", "2G", "--ram", "1G"], "hot-set"),
    (["demo", "--channels", "0"], "1 to 255"),
    (["demo", "--channels=300"], "1 to 255"),
    (["demo", "--multifd-channels", "256"], "1 to 255"),
    (["demo", "--downtime-limit", "soon"], "downtime-limit"),
    (["demo", "--json=yes"], "takes no value"),
    (["demo", "--transport", "pigeon"], "tcp, unix"),
    (["demo", "--pattern", "plaid"], "random, zero, mixed"),
    (["demo", "--x-fault", "typo"], "drop-dirty-bit"),
    (["demo", "--guest", "idle", "--dirty-rate", "5M"], "idle"),
    (["demo", "--cpus", "2"], "--guest kvm"),
    (["demo", "--guest", "kvm", "--cpus", "0"], "1 to 64"),
    (["demo", "--guest", "kvm", "--cpus", "2K"], "1 to 64"),
    (["demo", "--guest", "kvm", "--cpus", "99999999999999999999"], "1 to 64"),
    (["demo", "--guest", "kvm", "--hot-set", "1M"], "leave --hot-set"),
    (["demo", "--guest", "kvm", "--ram", "16K"], "24576"),
    (["demo", "--guest", "kvm", "--memory-from", "/etc/hostname"], "leave --memory-from"),
    (["recv", "tcp:127.0.0.1:0", "--guest", "kvm", "--dump", "a"], "leave"),
    (["demo", "tcp:127.0.0.1:1"], "takes no argument"),
    (["send"], "needs a URI"),
    (["send", "127.0.0.1"], "tcp:HOST:PORT"),
    (["send", "tcp:127.0.0.1"], "port"),
    (["send", "tcp:127.0.0.1:70000"], "65535"),
    (["send", "tcp:::1:4444"], "bracket"),
    (["send", "rdma:192.0.2.1"], "port"),
    (["send", "tcp:127.0.0.1:1", "tcp:127.0.0.1:2"], "one URI"),
    (["send", "tcp:127.0.0.1:1", "--memory-from", "/nonexistent"], "/nonexistent"),
    (["send", "tcp:127.0.0.1:1", "--memory-from", "/"], "/"),
    (["send", "tcp:127.0.0.1:1", "--memory-from", "/etc/hostname", "--pattern", "zero"], "use one"),
    (["recv"], "needs a URI"),
    (["recv", "unix:"], "unix:PATH"),
    (["recv", "rdma:"], "rdma:HOST:PORT"),
    (["send", "file:/tmp/x"], "rdma:HOST:PORT"),
    (["recv", "unix:/" + "x" * 200], "107"),
    (["recv", "tcp:127.0.0.1:0", "--dump", "a", "--discard"], "use one"),
    (["recv", "tcp:127.0.0.1:0", "--guest", "process", "--discard"], "leave"),
    (["recv", "tcp:127.0.0.1:0", "--max-bandwidth", "1G"], "godwit send"),
    (["recv", "tcp:127.0.0.1:0", "--tls-hostname", "name"], "godwit send"),
    (["send", "tcp:127.0.0.1:1", "--tls-authz", "CN=*"], "godwit recv"),
    (["send", "tcp:127.0.0.1:1", "--tls-creds"], "needs a value"),
    (["send", "tcp:127.0.0.1:1", "--tls-creds", "--json"], "needs a value"),
    (["send", "tcp:127.0.0.1:1", "--tls-creds", "/etc\n"], "control character"),
    (["send", "tcp:127.0.0.1:1", "--tls-creds", "x" * 5000], "0 to 4096"),
    (["send", "tcp:127.0.0.1:1", "--tls-required="], "needs a value"),
    (["device"], "did you mean 'devices'"),
    (["devices", "--jsn"], "did you mean --json"),
    (["devices", "--channels", "2"], "devices --help"),
    (["devices", "--max-bandwidth", "1G"], "devices --help"),
    (["devices", "mlx5_0"], "takes no argument"),
    (["pki"], "needs a directory"),
    (["pki", ""], "needs a directory"),
    (["pki", "/nonexistent/a", "b"], "one directory"),
    (["pki", "/nonexistent/a", "--hst", "b"], "did you mean --host"),
    (["pki", "/nonexistent/a", "--days", "0"], "1 to 36500"),
    (["pki", "/nonexistent/a", "--days", "36501"], "1 to 36500"),
    (["pki", "/nonexistent/a", "--psk"], "--psk USER"),
    (["pki", "/nonexistent/a", "--psk", "qemu", "--host", "b"], "leave --host"),
    (["pki", "/nonexistent/a", "--psk", "qemu", "--revoke", "b"], "use one"),
    (["pki", "/nonexistent/a", "--revoke", "b", "--days", "3"], "leave --host"),
    (["pki", "/nonexistent/a", "--max-bandwidth", "1G"], "pki --help"),
]


def wrong_words_are_refused(t):
    for words, remedy in REFUSED:
        answer = t.tool.run(*words, limit=10)
        line = answer.err.splitlines()
        good = (answer.code == 2 and answer.out == "" and len(line) == 1 and line[0].startswith("godwit: ")
                and remedy in line[0])
        t.expect(good, " ".join(words)[:60], answer)


def an_error_of_usage_prints_no_object(t):
    answer = t.tool.run("demo", "--json", "--channels", "0")
    t.expect(answer.code == 2 and answer.out == "" and len(answer.errors) == 1, "with --json too", answer)


def an_empty_text_is_off(t):
    for words in (["--tls-creds", ""], ["--tls-creds="], ["--tls-creds", "/nowhere", "--tls-creds", ""]):
        answer = t.tool.run("send", f"unix:{t.scratch}/nobody", "--ram", "1M", "--connect-timeout", "1ms", *words, limit=20)
        t.expect(answer.code == 1 and "nothing listens" in answer.err, " ".join(words) + ": a good command line", answer)


def help_is_complete(t):
    answer = t.tool.run()
    t.expect(answer.code == 2 and answer.out == "" and "usage" in answer.err, "no arguments: usage, exit 2", answer)
    for words in (["help"], ["--help"], ["help", "recv"], ["demo", "--help"], ["send", "--help"], ["recv", "--help"],
                  ["devices", "--help"], ["pki", "--help"], ["demo", "--ram", "64M", "--help"]):
        answer = t.tool.run(*words)
        narrow = all(len(line) <= 100 for line in answer.out.splitlines())
        t.expect(answer.code == 0 and answer.err == "" and "usage" in answer.out and narrow, " ".join(words), answer)
    text = t.tool.run("demo", "--help").out
    for name in ("multifd-channels", "max-bandwidth", "downtime-limit", "connect-timeout", "x-fault", "ram", "hot-set"):
        t.expect(f"--{name} " in text, f"--help knows --{name}")
    t.expect("--tls-username TEXT" in text and "Default qemu" in text, "--help knows texts and their defaults")
    t.expect("--max-bandwidth" not in t.tool.run("recv", "--help").out, "recv --help leaves the source's options out")


def version_is_told(t):
    answer = t.tool.run("--version")
    t.expect(answer.code == 0 and re.fullmatch(r"godwit \d+\.\d+\.\d+\n", answer.out), "one line", answer)


CASES = [wrong_words_are_refused, an_error_of_usage_prints_no_object, an_empty_text_is_off, help_is_complete,
         version_is_told]
