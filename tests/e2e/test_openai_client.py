"""The unmodified `openai` client against a real cluster."""
import openai
import pytest

import videos

NO_STORE = {"Cache-Control": "no-store"}
SUM = [{"role": "user", "content": "What is 2+2?"}]


def test_models(client, model_name):
    model = client.models.list().data[0]
    assert model.object == "model" and model.id == model_name and model.created > 0
    assert client.models.retrieve(model_name).id == model_name
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_chat(client, model_name):
    answer = client.chat.completions.create(model=model_name, messages=SUM, max_tokens=32, temperature=0)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert "4" in answer.choices[0].message.content
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.system_fingerprint


def test_chat_streams_the_same_bytes(client, model_name):
    whole = client.chat.completions.create(model=model_name, messages=SUM, max_tokens=32, temperature=0, extra_headers=NO_STORE)
    chunks = list(client.chat.completions.create(model=model_name, messages=SUM, max_tokens=32, temperature=0, stream=True,
                                                 stream_options={"include_usage": True}, extra_headers=NO_STORE))
    assert {c.object for c in chunks} == {"chat.completion.chunk"} and len({c.id for c in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert len(chunks) > 4, "tokens should come one by one"


def test_n_choices_are_sampled_apart(client, model_name):
    ask = dict(model=model_name, messages=[{"role": "user", "content": "Tell me a story."}], max_tokens=24, temperature=1.0, seed=7, n=2,
               extra_headers=NO_STORE)
    answer = client.chat.completions.create(**ask)
    assert [c.index for c in answer.choices] == [0, 1]
    assert answer.choices[0].message.content != answer.choices[1].message.content
    assert answer.usage.completion_tokens > 24
    again = client.chat.completions.create(**ask)
    assert [c.message.content for c in again.choices] == [c.message.content for c in answer.choices]


def test_seed_decides_the_answer(client, model_name):
    def ask(seed):
        return client.chat.completions.create(model=model_name, messages=[{"role": "user", "content": "Name an animal and say why."}],
                                              max_tokens=24, temperature=1.0, seed=seed, extra_headers=NO_STORE).choices[0].message.content
    assert ask(1) == ask(1)
    assert len({ask(s) for s in range(4)}) > 1


def test_logprobs(client, model_name):
    answer = client.chat.completions.create(model=model_name, messages=SUM, max_tokens=8, temperature=0, logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens or len(entries) == answer.usage.completion_tokens - 1
    for e in entries:
        assert e.logprob <= 0 and len(e.top_logprobs) == 3
        assert e.top_logprobs[0].logprob == pytest.approx(e.logprob, abs=1e-5), "greedy takes the most likely token"
        assert bytes(e.bytes).decode(errors="replace") == e.token
    assert "".join(e.token for e in entries).strip() == answer.choices[0].message.content.strip()


def test_stop_strings(client, model_name):
    ask = dict(model=model_name, messages=[{"role": "user", "content": "Count from 1 to 10."}], max_tokens=64, temperature=0)
    full = client.chat.completions.create(**ask).choices[0].message.content
    mark = full[len(full) // 2:][:3]
    cut = client.chat.completions.create(**ask, stop=[mark]).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.message.content == full[:full.index(mark)]


def test_max_tokens_is_length(client, model_name):
    answer = client.chat.completions.create(model=model_name, messages=[{"role": "user", "content": "Tell me a long story."}],
                                            max_completion_tokens=5, temperature=0)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 5


def test_completions(client, model_name):
    ask = dict(model=model_name, prompt="The capital of France is", max_tokens=8, temperature=0)
    answer = client.completions.create(**ask, extra_headers=NO_STORE)
    assert answer.object == "text_completion" and "Paris" in answer.choices[0].text
    streamed = client.completions.create(**ask, stream=True, extra_headers=NO_STORE)
    assert "".join(c.choices[0].text for c in streamed) == answer.choices[0].text


def test_errors_are_the_clients_exceptions(client, model_name):
    with pytest.raises(openai.NotFoundError) as e:
        client.chat.completions.create(model="gpt-4o", messages=SUM)
    assert e.value.body["param"] == "model"
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model=model_name, messages=SUM, temperature=9)
    assert e.value.body["param"] == "temperature"
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model=model_name, messages=[])
    assert e.value.body["param"] == "messages"
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model=model_name, messages=[{"role": "user", "content": "word " * 20000}])
    assert "context" in e.value.body["message"] and "8192" in e.value.body["message"]
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model=model_name, messages=SUM, tools=[{"type": "function", "function": {"name": "f"}}])
    assert e.value.body["param"] == "tools"


def test_file_and_question(client, model_name, tmp_path):
    path = videos.pancake(tmp_path / "pancake.mp4")
    file = client.files.create(file=path.open("rb"), purpose="user_data")
    assert file.object == "file" and file.id.startswith("file-") and file.bytes == path.stat().st_size and file.filename == "pancake.mp4"
    ask = dict(model=model_name, temperature=0, max_tokens=48, messages=[{"role": "user", "content": [
        {"type": "file", "file": {"file_id": file.id}},
        {"type": "text", "text": "What does Anna serve the pancake with?"}]}])
    answer = client.chat.completions.create(**ask)
    assert "syrup" in answer.choices[0].message.content.lower()
    streamed = client.chat.completions.create(**ask, stream=True, extra_headers=NO_STORE)
    assert "".join(c.choices[0].delta.content or "" for c in streamed if c.choices) == answer.choices[0].message.content
    assert client.files.retrieve(file.id).status == "processed"
    assert file.id in [f.id for f in client.files.list()]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
        client.chat.completions.create(**ask)
