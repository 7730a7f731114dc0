"""KV in the caches: a worker that starts cold starts warm, and nothing that happens to what is kept changes an answer."""
import os
import signal
import socket

import pytest

from conftest import until

WORDS = ("the river of stones and that old boat was with him on a hill where they would build one house for all who came from far "
         "away to see what light there is over some water before it gets dark again in time").split()


def prompt(seed, tail):
    """Some 600 tokens that are a function of the seed, and a few of one's own."""
    x, words = seed * 2654435761 % 2**32, []
    for _ in range(560):
        x = (x * 1103515245 + 12345) % 2**31
        words.append(WORDS[x // 65536 % len(WORDS)])
    return " ".join(words) + " " + tail


def ask(cluster, seed, tail, tokens=12, store=False):
    """(what was said, cached tokens). Answers are drawn at random with a seed; not stored, each is worked out anew."""
    body = {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": prompt(seed, tail)}], "max_tokens": tokens,
            "temperature": 0.7, "seed": seed, "logprobs": True}
    status, _, answer = cluster.post_json("/v1/chat/completions", body, {} if store else {"Cache-Control": "no-store"})
    assert status == 200, answer
    choice = answer["choices"][0]
    return (choice["message"]["content"], [t["logprob"] for t in choice["logprobs"]["content"]]), \
        answer["usage"]["prompt_tokens_details"]["cached_tokens"]


class Redis:
    """As much of Redis' protocol as these tests speak."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.file = self.sock.makefile("rb")

    def __call__(self, *words):
        words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        self.sock.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        return self.read()

    def read(self):
        line = self.file.readline().strip()
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        return int(rest) if kind == b":" else rest


def kv_redis(cluster):
    return Redis(cluster.state()["sockets"] + "/redis-kv.sock")


def kept(cluster):
    return len(kv_redis(cluster)("KEYS", "nunchi:1:b6:*"))


def wait_kept(cluster, at_least):
    until(lambda: kept(cluster) >= at_least, 30, "KV to be kept in Redis")


def restart_cold(cluster, *services):
    """Kills them, one after another, and waits until the worker, which comes last where it is named, sees the cache again: one that is
    asked before computes what it could have had, as it should, and that is not what is tested here."""
    lives = cluster.log("model-1").count('"msg":"ready"')
    for name in services:
        cluster.wait_restarted(name, cluster.kill(name))
    lives += "model-1" in services

    def sees_the_cache():
        since = cluster.log("model-1").split('"msg":"ready"')
        return len(since) - 1 >= lives and '"msg":"link up"' in since[-1] and '"service":"cache"' in since[-1]
    until(sees_the_cache, 60, "the worker to see the cache")
    cluster.wait_ready()


TAIL = "Say it in other words."


@pytest.fixture
def filled(own_cluster):
    """A cluster that has computed a prompt, and what it says when asked about it."""
    c = own_cluster()
    _, cached = ask(c, 1, "Go on.", store=True)
    assert cached < 64
    wait_kept(c, 30)
    said, cached = ask(c, 1, TAIL)
    assert cached >= 480, "the worker's own"
    return c, said


@pytest.mark.parametrize("services", [("model-1",), ("cache", "model-1")])
def test_a_cold_worker_takes_what_another_computed(filled, services):
    c, said = filled
    restart_cold(c, *services)
    again, cached = ask(c, 1, TAIL)
    assert cached >= 480, "from the cache's memory, or from Redis when that is gone too"
    assert again == said
    restart_cold(c, "redis-kv", "cache", "model-1")
    again, cached = ask(c, 1, TAIL)
    assert cached < 64 and again == said, "computed, it is the same to the last bit"


def damage(redis, how):
    for key in redis("KEYS", "nunchi:1:b6:*"):
        value = bytearray(redis("GET", key))
        if how == "a bit of the value":
            value[len(value) // 2] ^= 4
        elif how == "a bit of its name":
            value[60] ^= 1
        elif how == "cut short":
            value = value[:-1000]
        elif how == "something else":
            value = bytearray(b"x" * 5000)
        redis("SET", key, bytes(value))


def swap(redis):
    keys = redis("KEYS", "nunchi:1:b6:*")
    values = [redis("GET", k) for k in keys]
    for key, value in zip(keys, values[1:] + values[:1]):
        redis("SET", key, value)


@pytest.mark.parametrize("how", ["a bit of the value", "a bit of its name", "cut short", "something else", "swapped"])
def test_damaged_kv_is_a_miss(filled, how):
    c, said = filled
    redis = kv_redis(c)
    swap(redis) if how == "swapped" else damage(redis, how)
    restart_cold(c, "cache", "model-1")
    again, cached = ask(c, 1, TAIL)
    assert cached < 64 and again == said


@pytest.mark.parametrize("service,signo", [("redis-kv", signal.SIGSTOP), ("redis-kv", signal.SIGKILL), ("cache", signal.SIGSTOP)])
def test_kv_that_is_away_is_a_miss(filled, service, signo):
    c, said = filled
    restart_cold(c, "cache", "model-1")
    pid = c.kill(service, signo)
    again, _ = ask(c, 1, TAIL)
    assert again == said
    if signo == signal.SIGSTOP:
        os.kill(pid, signal.SIGCONT)
    else:
        c.wait_restarted(service, pid)
    assert ask(c, 1, TAIL)[0] == said


def test_a_full_redis_keeps_answers_coming(filled):
    c, said = filled
    kv_redis(c)("CONFIG", "SET", "maxmemory", "3mb")
    assert all(ask(c, seed, "Go on.", store=True)[0][0] for seed in (5, 6, 7))
    restart_cold(c, "cache", "model-1")
    assert ask(c, 1, TAIL)[0] == said
