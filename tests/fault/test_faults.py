"""Services killed, frozen and started again under a running cluster: nothing is lost, nothing hangs, nothing lies."""
import concurrent.futures
import os
import signal

import pytest

import sys
import pathlib
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import videos  # noqa: E402
from conftest import until  # noqa: E402

NO_STORE = {"Cache-Control": "no-store"}


def ask(client, model, seed=3, tokens=40):
    stream = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Tell me a story about the sea."}], seed=seed,
                                            temperature=0.9, max_tokens=tokens, stream=True, extra_headers=NO_STORE)
    return stream


def text_of(stream):
    return "".join(c.choices[0].delta.content or "" for c in stream if c.choices)


@pytest.fixture
def pair(own_cluster):
    """A cluster of two model workers."""
    c = own_cluster(workers=2)
    return c, c.openai(), c.openai().models.list().data[0].id


def busy_worker(cluster):
    """The model worker that computes right now, by the processor time it uses."""
    def ticks(pid):
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])
    names = ["model-1", "model-2"]
    start = {n: ticks(cluster.pid(n)) for n in names}
    def moved():
        grown = {n: ticks(cluster.pid(n)) - start[n] for n in names}
        best = max(grown, key=grown.get)
        return best if grown[best] >= 5 and grown[best] > 2 * min(grown.values()) else None
    return until(moved, 20, "one worker to work")


@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGSTOP])
def test_an_answer_outlives_its_worker(pair, signo):
    cluster, client, model = pair
    undisturbed = text_of(ask(client, model, tokens=300))
    stream = ask(client, model, tokens=300)
    pieces = [next(stream).choices[0].delta.content or ""]
    name = busy_worker(cluster)
    pid = cluster.kill(name, signo)
    pieces.append(text_of(stream))
    assert "".join(pieces) == undisturbed
    if signo == signal.SIGSTOP:
        os.kill(pid, signal.SIGCONT)
    else:
        cluster.wait_restarted(name, pid)
    assert text_of(ask(client, model, tokens=300)) == undisturbed


@pytest.mark.parametrize("service", ["tokenizer", "cache", "video", "model-1", "gateway", "redis"])
def test_each_service_killed_comes_back(own_cluster, service):
    c = own_cluster()
    model = c.openai().models.list().data[0].id
    before = text_of(ask(c.openai(), model))
    c.wait_restarted(service, c.kill(service))
    c.wait_ready()
    assert text_of(ask(c.openai(), model)) == before
    assert c.services()[service]["restarts"] == 1


@pytest.mark.parametrize("service", ["tokenizer", "cache", "video", "model-1"])
def test_each_service_frozen_and_woken(own_cluster, service):
    c = own_cluster()
    model = c.openai().models.list().data[0].id
    before = text_of(ask(c.openai(), model))
    pid = c.kill(service, signal.SIGSTOP)
    if service in ("tokenizer", "model-1"):
        until(lambda: c.get("/readyz")[0] == 503, 20, "the gateway to see that nobody can answer")
    os.kill(pid, signal.SIGCONT)
    c.wait_ready()
    assert text_of(ask(c.openai(), model)) == before
    assert c.services()[service]["restarts"] == 0


def test_redis_away_is_a_miss_and_503_for_files(own_cluster, tmp_path):
    c = own_cluster()
    model = c.openai().models.list().data[0].id
    pid = c.kill("redis", signal.SIGSTOP)
    body = {"model": model, "messages": [{"role": "user", "content": "What is 2+2?"}], "temperature": 0, "max_tokens": 16}
    status, _, answer = c.post_json("/v1/chat/completions", body)
    assert status == 200 and "4" in answer["choices"][0]["message"]["content"]
    assert c.get("/v1/files")[0] == 503
    os.kill(pid, signal.SIGCONT)
    until(lambda: c.get("/v1/files")[0] == 200, 30, "files to be served again")
    path = videos.pancake(tmp_path / "p.mp4")
    file = c.openai().files.create(file=path.open("rb"), purpose="user_data")
    until(lambda: c.openai().files.retrieve(file.id).status == "processed", 60, "the video to be read")
    c.wait_restarted("redis", c.kill("redis"))
    until(lambda: c.get(f"/v1/files/{file.id}")[0] == 200, 30, "the file to be there after Redis was killed")


def test_many_streams_while_workers_die(pair):
    cluster, client, model = pair
    alone = [text_of(ask(client, model, seed=s)) for s in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(lambda s=s: text_of(ask(client, model, seed=s))) for s in range(8)]
        for name in ("model-1", "model-2"):
            cluster.wait_restarted(name, cluster.kill(name))
        got = [s.result() for s in streams]
    assert got == alone


def test_a_video_being_read_survives_its_reader(own_cluster, tmp_path):
    c = own_cluster()
    path = videos.make(tmp_path / "long.mp4", [(colour, f"SCENE {i}") for i, colour in enumerate(["red", "blue", "green", "gray"] * 3)], seconds=5)
    file = c.openai().files.create(file=path.open("rb"), purpose="user_data")
    c.wait_restarted("video", c.kill("video"))
    until(lambda: c.openai().files.retrieve(file.id).status != "uploaded", 120, "the video to be read after all")
    assert c.openai().files.retrieve(file.id).status == "processed"
