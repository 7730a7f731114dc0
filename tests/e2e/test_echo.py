"""`echo` on /v1/completions: how likely a model finds each token of a given text. What lm-evaluation-harness asks for."""
import json
import os
import signal
import subprocess
import threading

import numpy
import openai
import pytest

from conftest import BUILD, SLOW, SMOLLM2, Cluster, until

TEXT = "The capital of France is Paris. 대한민국의 수도는 서울이다. <|im_end|> x"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    c = Cluster(tmp_path_factory.mktemp("echo") / "home", model=SMOLLM2, workers=2)
    try:
        yield c.up()
    finally:
        c.down()


@pytest.fixture(scope="module")
def client(cluster):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{cluster.port}/v1", api_key="none", max_retries=0)


def ask(client, prompt=TEXT, **more):
    more = {"max_tokens": 0, "echo": True, "logprobs": 3, "temperature": 0, **more}
    return client.completions.create(model="smollm2-135m-instruct", prompt=prompt, extra_headers={"Cache-Control": "no-store"}, **more)


def ids_of(cluster, text):
    import urllib.request
    q = urllib.request.Request(f"http://127.0.0.1:{cluster.port}/tokenize", json.dumps({"model": "smollm2-135m-instruct", "prompt": text}).encode())
    return json.load(urllib.request.urlopen(q))["tokens"]


def test_logprobs_are_those_of_the_logits(cluster, client):
    """Beside the engine's own logits, computed apart in one step: the same numbers, however the text came to be computed."""
    ids = ids_of(cluster, TEXT)
    done = subprocess.run([BUILD / "tests" / "bench" / "logits", SMOLLM2, "cpu", "4096", *map(str, ids)], capture_output=True, timeout=120 * SLOW)
    rows = numpy.frombuffer(done.stdout, "<f4").reshape(len(ids), -1).astype(float)
    norm = numpy.log(numpy.exp(rows - rows.max(axis=1, keepdims=True)).sum(axis=1)) + rows.max(axis=1)
    want = [rows[i, ids[i + 1]] - norm[i] for i in range(len(ids) - 1)]
    answer = ask(client)
    choice = answer.choices[0]
    assert choice.text == TEXT and choice.finish_reason == "length"
    assert answer.usage.prompt_tokens == len(ids) and answer.usage.completion_tokens == 0
    p = choice.logprobs
    assert len(p.tokens) == len(p.token_logprobs) == len(p.top_logprobs) == len(p.text_offset) == len(ids)
    assert p.token_logprobs[0] is None and p.top_logprobs[0] is None and p.text_offset[0] == 0
    assert numpy.abs(numpy.array(p.token_logprobs[1:]) - want).max() < 1e-4
    assert all(len(top) >= 1 for top in p.top_logprobs[1:])
    best = [rows[i].max() - norm[i] for i in range(len(ids) - 1)]
    assert numpy.abs(numpy.array([max(t.values()) for t in p.top_logprobs[1:]]) - best).max() < 1e-4


def test_what_is_generated_goes_on_from_it(client):
    prompt = "The capital of France is"
    plain = ask(client, prompt, echo=False, max_tokens=6)
    both = ask(client, prompt, max_tokens=6)
    assert both.choices[0].text == prompt + plain.choices[0].text
    assert both.usage.completion_tokens == plain.usage.completion_tokens == 6
    assert both.choices[0].logprobs.token_logprobs[-6:] == pytest.approx(plain.choices[0].logprobs.token_logprobs, abs=1e-6)
    assert both.choices[0].logprobs.text_offset[5] == len(prompt)


def test_stream_choices_and_cache(client):
    chunks = list(ask(client, stream=True, logprobs=None))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == TEXT
    two = ask(client, "The sky is", n=2, max_tokens=4, temperature=1.0, seed=3)
    assert [c.text[:10] for c in two.choices] == ["The sky is"] * 2 and two.usage.completion_tokens == 8
    stored = dict(model="smollm2-135m-instruct", prompt="Roses are red", max_tokens=3, temperature=0, echo=True, logprobs=1)
    first, again = (client.completions.create(**stored) for _ in range(2))
    assert first.choices[0] == again.choices[0] and first.usage.completion_tokens == again.usage.completion_tokens == 3
    without = client.completions.create(**{**stored, "echo": False})
    assert first.choices[0].text == "Roses are red" + without.choices[0].text


def test_stops_and_ends_are_not_looked_for_in_what_is_echoed(client):
    answer = ask(client, "one two three two", stop=["two"], max_tokens=2)
    assert answer.choices[0].text.startswith("one two three two")


def test_one_token_and_wrong_fields(client):
    answer = ask(client, "x")
    assert answer.choices[0].text.startswith("x") and answer.choices[0].logprobs.token_logprobs[0] is None
    with pytest.raises(openai.BadRequestError, match="0 goes with echo alone"):
        ask(client, echo=False)
    with pytest.raises(openai.BadRequestError, match="echo"):
        ask(client, echo="yes")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="smollm2-135m-instruct", messages=[{"role": "user", "content": "x"}], extra_body={"echo": True})


def test_a_worker_that_dies_changes_nothing(cluster, client):
    prompt = " ".join(f"On day {i} the ferry carried {i * 7 % 31} passengers." for i in range(100))
    want = ask(client, prompt)
    results, errors = [], []

    def run():
        try:
            results.append(ask(client, prompt))
        except openai.APIError as e:
            errors.append(e)
    threads = [threading.Thread(target=run) for _ in range(4)]
    for t in threads:
        t.start()
    victim = next(s["pid"] for s in cluster.state()["services"] if s["name"] == "model-1")
    os.kill(victim, signal.SIGKILL)
    for t in threads:
        t.join()
    assert not errors and len(results) == 4
    for r in results:
        assert r.choices[0] == want.choices[0]
    until(lambda: next(s["pid"] for s in cluster.state()["services"] if s["name"] == "model-1") not in (0, victim), 60, "the worker to be back")
