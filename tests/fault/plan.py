"""What goes wrong, and when: a schedule that is a function of a seed, carried out on a running cluster."""
import os
import pathlib
import random
import signal
import socket
import subprocess
import threading
import time

import proxy

# Kinds of faults, and how often beside each other.
WEIGHTS = {"kill": 5, "freeze": 3, "end": 2, "redis-full": 1, "redis-slow": 1, "cut": 2, "partition": 2, "delay": 1, "garble": 3, "clock": 1}
SERVICES = {"model": 5, "tokenizer": 2, "cache": 2, "video": 1, "redis-kv": 1, "redis": 1, "gateway-2": 1}


# What everybody's clock on the wall jumps by.
JUMPS = ["+1h", "-1h", "+400d", "-400d"]
FAKETIME = pathlib.Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


class Clock:
    """The time that the services of a cluster read (not its monotonic clock), by libfaketime: start them with `env`."""

    def __init__(self, folder):
        self.file = pathlib.Path(folder, "clock")
        self.jump("+0")
        self.env = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_CACHE_DURATION": "1",
                    "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def jump(self, by):
        self.file.write_text(by + "\n")


class Fault:
    def __init__(self, at, kind, service, seconds, which):
        self.at, self.kind, self.service, self.seconds, self.which = at, kind, service, seconds, which

    def __str__(self):
        return f"{self.at:6.1f} s  {self.kind} {self.service}" + (f" for {self.seconds:.1f} s" if self.seconds else "")


def schedule(seed, seconds, every=3.0, only=None):
    """Faults from second 1 on, about every so often; the last ones end before the end."""
    rnd, at, faults = random.Random(seed), 1.0, []
    while at < seconds - 6:
        kind = only or rnd.choices(list(WEIGHTS), WEIGHTS.values())[0]
        service = rnd.choices(list(SERVICES), SERVICES.values())[0]
        if kind in ("cut", "partition", "garble", "delay"):
            service = "the worker behind the proxy"
        elif kind.startswith("redis-"):
            service = rnd.choice(["redis", "redis-kv"])
        elif kind == "clock":
            service = rnd.choice(JUMPS)
        elif only == "kill":
            service = "model"
        if service == "gateway-2" and kind == "kill":
            kind = "end"  # killed, it takes its own connections with it, which is no loss of ours
        length = {"freeze": rnd.choice([0.5, 2.5, 5.0]), "partition": 4.0, "garble": 3.0, "delay": 3.0, "redis-full": 4.0,
                  "redis-slow": 3.0, "clock": 4.0}.get(kind, 0)
        faults.append(Fault(at, kind, service, length, rnd.random()))
        at += every * (0.5 + rnd.random()) if not only else every
    return faults


def redis(cluster, name, *words):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(2)
        s.connect(f"{cluster.state()['sockets']}/{name}.sock")
        s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
        return s.recv(4096)


class Chaos:
    """Carries a schedule out. Runs one more worker, whose connections to the gateways go through a proxy."""

    def __init__(self, cluster, build, model, faults, clock, say=lambda text: None):
        self.cluster, self.faults, self.clock, self.say = cluster, faults, clock, say
        self.pending, self.counts, self.stop = [], {}, threading.Event()
        sockets = cluster.state()["sockets"]
        self.proxies = [proxy.Proxy(f"{sockets}/proxy-{i}.sock", f"{sockets}/{name}.sock", seed=i)
                        for i, name in enumerate(s for s in cluster.services() if s.startswith("gateway"))]
        self.log = open(cluster.home / "logs" / "model-proxied.log", "a")
        self.command = [build / "bin" / "nunchi-model", "--model", str(model), "--threads", "1",
                        "--gateways", ",".join(f"ipc://{p.path}" for p in self.proxies), "--caches", f"ipc://{sockets}/cache.sock"]
        self.worker = None
        self.start_worker()

    def start_worker(self):
        self.worker = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=self.cluster.env)

    def pid_of(self, fault):
        names = [n for n in self.cluster.services() if n == fault.service or (fault.service == "model" and n.startswith("model-"))]
        return self.cluster.pid(names[int(fault.which * len(names))]) if names else 0

    def later(self, seconds, undo):
        self.pending.append((time.monotonic() + seconds, undo))

    def signal(self, pid, signo):
        try:
            if pid > 0:
                os.kill(pid, signo)
        except ProcessLookupError:
            pass

    def do(self, fault):
        if fault.kind in ("kill", "end", "freeze"):
            pid = self.pid_of(fault)
            self.signal(pid, {"kill": signal.SIGKILL, "end": signal.SIGTERM, "freeze": signal.SIGSTOP}[fault.kind])
            if fault.kind == "freeze":
                self.later(fault.seconds, lambda: self.signal(pid, signal.SIGCONT))
        elif fault.kind == "redis-full":
            redis(self.cluster, fault.service, "CONFIG", "SET", "maxmemory", "1mb")
            self.later(fault.seconds, lambda: redis(self.cluster, fault.service, "CONFIG", "SET", "maxmemory", "1gb"))
        elif fault.kind == "redis-slow":
            redis(self.cluster, fault.service, "CLIENT", "PAUSE", str(int(fault.seconds * 1000)))
        elif fault.kind == "clock":
            self.clock.jump(fault.service)
            self.later(fault.seconds, lambda: self.clock.jump("+0"))
        elif fault.kind == "cut":
            for p in self.proxies:
                p.cut()
        else:
            field, value = {"partition": ("swallow", True), "garble": ("garble", True), "delay": ("delay", 0.02)}[fault.kind]
            for p in self.proxies:
                setattr(p, field, value)
                self.later(fault.seconds, lambda p=p: setattr(p, field, type(value)(0)))

    def undo_due(self, now):
        due = [undo for at, undo in self.pending if at <= now]
        self.pending = [(at, undo) for at, undo in self.pending if at > now]
        for undo in due:
            try:
                undo()
            except OSError:
                pass  # it was killed meanwhile

    def run(self):
        begun = time.monotonic()
        left = list(self.faults)
        while (left or self.pending) and not self.stop.wait(0.05):
            now = time.monotonic()
            self.undo_due(now)
            if self.worker.poll() is not None:
                self.start_worker()
            while left and left[0].at <= now - begun:
                fault = left.pop(0)
                self.say(str(fault))
                self.counts[fault.kind] = self.counts.get(fault.kind, 0) + 1
                try:
                    self.do(fault)
                except OSError as e:  # what it was for is down already
                    self.say(f"          ({e})")
        self.undo_due(float("inf"))

    def close(self):
        self.stop.set()
        self.worker.terminate()
        try:
            self.worker.wait(60)
        except subprocess.TimeoutExpired:
            self.worker.kill()
            self.worker.wait()
        for p in self.proxies:
            p.close()
        self.log.close()
