"""Several models in one cluster: each is asked for by its name, and what happens to one does not happen to another."""
import os
import pathlib
import signal
import sys

import openai
import pytest

from conftest import GEMMA3, SMOLLM2, Cluster, until

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "golden"))
import checkpoints  # noqa: E402


@pytest.fixture
def cluster(tmp_path):
    checkpoints.write_folder(tmp_path / "small", "gptneox")
    c = Cluster(tmp_path / "home", model=SMOLLM2)
    c.args += ["--model", str(GEMMA3), "--model", "small"]
    assert c.nunchi("model", "add", tmp_path / "small", "--quant", "q8_0").returncode == 0
    yield c
    c.down()


def client_of(c):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{c.port}/v1", api_key="none", max_retries=0)


def complete(client, model):
    done = client.completions.create(model=model, prompt="The capital of France is", max_tokens=6, temperature=0)
    assert done.model == model and done.usage.completion_tokens == 6
    return done.choices[0].text


def test_models_side_by_side(cluster):
    client = client_of(cluster.up())
    names = sorted(m.id for m in client.models.list())
    assert names == ["gemma-3-270m", "small", "smollm2-135m-instruct"]
    first = {name: complete(client, name) for name in names}
    assert len(set(first.values())) == 3
    with pytest.raises(openai.NotFoundError, match="not served here"):
        complete(client, "another")
    chat = client.chat.completions.create(model="smollm2-135m-instruct", messages=[{"role": "user", "content": "Hi"}], max_tokens=4)
    assert chat.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hi"}], max_tokens=4)

    # One model's worker dies: the others answer as before, and it comes back.
    at = {s["name"]: s["pid"] for s in cluster.state()["services"]}
    os.kill(at["model-3"], signal.SIGKILL)
    for name in names[:1] + names[2:]:
        assert complete(client, name) == first[name]
    until(lambda: complete_or_none(client, "small") == first["small"], 60, "the small model to come back")
    assert "small.gguf" in cluster.nunchi("status").stdout


def complete_or_none(client, model):
    try:
        return complete(client, model)
    except openai.APIError:
        return None


def test_names_that_cannot_be_told_apart(cluster):
    cluster.args += ["--model", str(SMOLLM2)]
    done = cluster.nunchi(*cluster.args)
    assert done.returncode == 1 and "two models are called 'smollm2-135m-instruct'" in done.stderr
    done = cluster.nunchi("up", *["--model", "small"] * 9)
    assert done.returncode == 2 and "--model can be given 8 times" in done.stderr


def test_more_memory_than_there_is(tmp_path):
    c = Cluster(tmp_path / "home", env={"NUNCHI_KV_BYTES": "100000g"})
    try:
        done = c.nunchi(*c.args)
        assert done.returncode == 1
        assert "weights take 0.1 GB and KV 107374.2 GB; this machine, or its control group, has" in done.stderr
    finally:
        c.down()
