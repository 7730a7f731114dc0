"""The parts that measure whole servers over HTTP: start, gateway."""
import contextlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
import time

from . import ours as nunchi
from . import shell

STREAMS = 16
MANY_STREAMS = 64
ANSWER_TOKENS = 64
PROMPT_WORDS = 80     # about 110 tokens with the chat's own
SHARED_WORDS = 900    # about 1,000 tokens
START_SECONDS = 300   # a server that is not there by then never will be
SERVER_SETTINGS = [{"fa": "on"}, {"fa": "off"}, {"fa": "on", "kvu": "1"}]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(port):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        c.request("GET", "/health")
        return c.getresponse().status == 200
    except OSError:
        return False
    finally:
        c.close()


@contextlib.contextmanager
def stopped_after(words, **kw):
    p = subprocess.Popen([str(w) for w in words], stdin=subprocess.DEVNULL, **kw)
    try:
        yield p
    finally:
        p.terminate()
        p.wait()


@contextlib.contextmanager
def llama_server(peer, model, setting, sequences=STREAMS, tokens_each=2048):
    """Its address, process and seconds until it was ready. Every stream has a slot."""
    port = free_port()
    words = [peer.folder / "llama-server", "-m", model, "-t", peer.threads, "-np", sequences, "-c", sequences * tokens_each, "--host", "127.0.0.1",
             "--port", port, "-fa", setting["fa"], *(["-kvu"] if setting.get("kvu") else [])]
    start = time.monotonic()
    with stopped_after(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
        while not answers(port):
            if p.poll() is not None or time.monotonic() > start + START_SECONDS:
                raise RuntimeError("llama-server did not start: " + " ".join(map(str, words)))
            time.sleep(0.005)
        yield f"http://127.0.0.1:{port}", p.pid, time.monotonic() - start


# ---- start ----------------------------------------------------------------------------------------


def model_start(n, key):
    """Seconds from exec until a worker says that it is ready, and its memory then."""
    with tempfile.TemporaryDirectory(prefix="nunchi-bench-") as folder:
        words = [n.build / "bin/nunchi-model", "--model", n.model(key), "--gateways", f"ipc://{folder}/g", "--caches", f"ipc://{folder}/c",
                 "--threads", n.threads]
        start = time.monotonic()
        with stopped_after(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as p:
            for line in p.stderr:
                if json.loads(line).get("msg") == "ready":
                    return time.monotonic() - start, nunchi.memory(p.pid)
    raise RuntimeError(f"nunchi-model ended before it was ready: {key}")


def plain(key, what, unit, mine, theirs):
    return {"model": nunchi.TITLES[key], "what": what, "unit": unit, "ours": mine, "peer": theirs, "more_is_better": False}


def start(pair, keys):
    for key in keys:
        model_start(pair.ours, key)  # the first one prepares the weights
        mine, memory = min((model_start(pair.ours, key) for _ in range(5)), key=lambda t: t[0])
        theirs, their_memory = None, {"rss": None, "anonymous": None}
        for _ in range(3 if pair.peer else 0):
            with llama_server(pair.peer, pair.ours.model(key), SERVER_SETTINGS[0], sequences=1) as (_, pid, seconds):
                theirs = min(theirs or seconds, seconds)
                their_memory = nunchi.memory(pid)
        yield plain(key, "exec to ready", "ms", mine * 1e3, theirs and theirs * 1e3)
        for kind, name in (("rss", "resident when ready"), ("anonymous", "of it not mapped from files")):
            yield plain(key, name, "MB", memory[kind] / 1e6, their_memory[kind] and their_memory[kind] / 1e6)
        with pair.ours.cluster(key, "--workers", 2) as (_, services):
            two = [nunchi.memory(s["pid"]) for s in services if s["name"].startswith("model-")]
        for kind, name in (("rss", "two workers, resident each"), ("pss", "two workers, their share (PSS) each")):
            yield plain(key, name, "MB", max(m[kind] for m in two) / 1e6, None)


# ---- gateway --------------------------------------------------------------------------------------


def load(n, url, pids, **options):
    """What the load generator saw, and the share of the machine that neither it nor the servers took."""
    words = [n.build / "tests/load/http_load", "--url", url, "--quiet", "--json", "-", "--max-tokens", ANSWER_TOKENS, "--prompt-words", PROMPT_WORDS,
             "--cpu-of", ",".join(map(str, pids))]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value]
    got = json.loads(shell.output(*shell.ALONE, *words))
    cpu = got["cpu_s"]
    others = cpu["machine"] - cpu["http_load"] - sum(p["s"] for p in cpu["processes"])
    failed = sum(got["requests"]["failed"].values())
    if failed:
        raise RuntimeError(f"{failed} requests failed: {got['requests']['first_failure']}")
    return got, max(0, others) / (got["wall_s"] * os.cpu_count())


def seed_of(round_, scenario):
    return 1000 * (round_ + 1) + scenario + int(time.time()) % 1000 * 100000  # no round finds what another left in a cache


def scenarios(n, url, pids, round_):
    """Every load once; name -> report."""
    def run(scenario, **options):
        return load(n, url, pids, seed=seed_of(round_, scenario), **options)
    shared = {"streams": STREAMS, "shared_words": SHARED_WORDS, "shared_seed": seed_of(round_, 9)}
    run(0, streams=2, requests=2)  # wakes everything up
    return {
        "1 stream": run(1, streams=1, requests=3),
        "16 streams": run(2, streams=STREAMS, requests=2 * STREAMS),
        "16 streams, 1,000 tokens shared, first": run(3, requests=STREAMS, **shared),
        "16 streams, 1,000 tokens shared, again": run(4, requests=2 * STREAMS, **shared),
        "64 streams": run(5, streams=MANY_STREAMS, requests=MANY_STREAMS),
    }


def better(a, b):
    return b if a is None or b[0]["tokens"]["per_s"] > a[0]["tokens"]["per_s"] else a


def all_rounds(rounds, serve, n, kept):
    for round_ in range(rounds):
        with serve() as (url, pids):
            for name, seen in scenarios(n, url, pids, round_).items():
                kept[name] = better(kept.get(name), seen)


def gateway(pair, _):
    key, n = "smollm2", pair.ours
    mine, theirs, setting = {}, {}, None

    @contextlib.contextmanager
    def ours_up():
        with n.cluster(key, "--threads", n.threads) as (url, services):
            yield url, [s["pid"] for s in services]

    @contextlib.contextmanager
    def peer_up(s=None):
        with llama_server(pair.peer, n.model(key), s or setting) as (url, pid, _):
            yield url, [pid]

    def try_setting(s):
        with peer_up(s) as (url, pids):
            got, others = load(n, url, pids, streams=STREAMS, requests=STREAMS, seed=seed_of(99, 0))
            return got["tokens"]["per_s"], others

    if pair.peer:
        setting = pair.setting(key, "server", SERVER_SETTINGS, try_setting)
    for _ in range(pair.rounds):
        all_rounds(1, ours_up, n, mine)
        if pair.peer:
            all_rounds(1, peer_up, n, theirs)
    for name, (got, others) in mine.items():
        peer_got, peer_others = theirs.get(name, (None, None))
        seen = {"ours": [round(others, 3)], "peer": [round(peer_others, 3)] if peer_got else []}
        base = {"model": nunchi.TITLES[key], "peer_setting": setting, "others": seen}
        yield base | {"what": name, "unit": "tok/s", "ours": got["tokens"]["per_s"], "peer": peer_got and peer_got["tokens"]["per_s"],
                      "detail": {"ours": got, "peer": peer_got}}
        for field, what in (("first_token_ms", "first token, median"), ("gap_ms", "between tokens, median"), ("gap_ms", "between tokens, 99 %")):
            at = "p99" if "99" in what else "p50"
            yield base | {"what": f"{name}: {what}", "unit": "ms", "ours": got[field][at], "peer": peer_got and peer_got[field][at],
                          "more_is_better": False}
