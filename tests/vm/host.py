"""What the host must have for a machine, and the one way in which we say that it has not."""
import shutil
import subprocess


class Unavailable(Exception):
    """No machine can be made here. One line for the user: what is missing, and how to get it."""


def need(program, package):
    """The path of a program; they may lie where a normal user's PATH does not lead."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if not path:
        raise Unavailable(f"{program} is missing: apt-get install {package}")
    return path


def run(*words, cwd=None):
    """The program's standard output; Unavailable with the end of what it said if it fails."""
    words = [str(word) for word in words]
    try:
        done = subprocess.run(words, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace")
    except OSError as error:
        raise Unavailable(f"{words[0]}: {error.strerror}")
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()
        raise Unavailable(f"{' '.join(words[:3])}: {said[-1]}")
    return done.stdout
