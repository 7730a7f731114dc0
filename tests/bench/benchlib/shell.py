"""Running programs whose speed is measured, and telling whether anybody else used the machine meanwhile.

Run as a program, it is what a measured command runs under:  shell.py REPORT COMMAND...  writes {"wall_s", "cpu_s", "others"} to REPORT,
others being the share of the machine that other processes, or other machines on the same host (steal), took."""
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

ALONE = []         # words before every measured command: something that runs it alone on a shared machine
QUIET = 0.03       # share of the machine that others may take before a run counts as disturbed
TRIES = 4          # of a disturbed run; then its best is used all the same
LOG = []           # of every measured command: {"command", "wall_s", "cpu_s", "others"}


def busy_seconds():
    """Of all processors since the machine started: everything but idle and waiting for disks."""
    with open("/proc/stat", encoding="ascii") as f:
        ticks = [int(n) for n in f.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def watched(report, command):
    busy, start = busy_seconds(), time.monotonic()
    status = subprocess.run(command).returncode
    wall, busy = time.monotonic() - start, busy_seconds() - busy
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    with open(report, "w", encoding="ascii") as f:
        json.dump({"wall_s": wall, "cpu_s": cpu, "others": max(0.0, busy - cpu) / (wall * os.cpu_count())}, f)
    return status if status >= 0 else 128 - status


def output(*command, env=None):
    """What it wrote to standard output; its standard error is shown if it fails."""
    words = [str(c) for c in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: status {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def measured(*command, env=None):
    """The same, alone; and how much others disturbed it."""
    with tempfile.NamedTemporaryFile(prefix="nunchi-bench-") as report:
        text = output(*ALONE, sys.executable, __file__, report.name, *command, env=env)
        with open(report.name, encoding="ascii") as f:
            seen = json.load(f)
    LOG.append({"command": " ".join(str(c) for c in command)} | seen)
    return text, seen["others"]


def best(run, speed=float, tries=TRIES):
    """The fastest of a few tries of run() -> (result, others); one is enough if nobody disturbed it."""
    results = []
    for _ in range(tries):
        result, others = run()
        results.append((speed(result), result, others))
        if others <= QUIET:
            break
    _, result, others = max(results, key=lambda r: r[0])
    return result, others


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


if __name__ == "__main__":
    sys.exit(watched(sys.argv[1], sys.argv[2:]))
