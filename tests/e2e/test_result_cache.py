"""A request whose answer is decided by its text is answered from the cache, and says so."""
BODY = {"messages": [{"role": "user", "content": "Name the largest ocean."}], "temperature": 0, "max_tokens": 16}


def ask(cluster, model, headers=None, **more):
    status, got, answer = cluster.post_json("/v1/chat/completions", {**BODY, "model": model, **more}, headers)
    assert status == 200, answer
    return got.get("x-nunchi-cache"), answer


def test_second_answer_comes_from_the_cache(cluster, model_name):
    mark = {"user": "cache-test"}
    first, a = ask(cluster, model_name, max_tokens=17, **mark)
    second, b = ask(cluster, model_name, max_tokens=17, **mark)
    assert (first, second) == ("miss", "hit")
    assert a["id"] != b["id"] and a["usage"] == b["usage"]
    assert a["choices"] == b["choices"]


def test_no_store_neither_reads_nor_writes(cluster, model_name):
    no_store = {"Cache-Control": "no-store"}
    assert ask(cluster, model_name, no_store, max_tokens=18)[0] != "hit"
    assert ask(cluster, model_name, max_tokens=18)[0] == "miss"
    assert ask(cluster, model_name, no_store, max_tokens=18)[0] != "hit"
    assert ask(cluster, model_name, max_tokens=18)[0] == "hit"


def test_an_open_answer_is_not_cached(cluster, model_name):
    assert ask(cluster, model_name, temperature=1.0)[0] != "hit"
    assert ask(cluster, model_name, temperature=1.0)[0] != "hit"


def test_a_hit_streams_when_asked_to(cluster, model_name):
    _, whole = ask(cluster, model_name, max_tokens=19)
    client = cluster.openai()
    raw = client.chat.completions.with_raw_response.create(**BODY | {"max_tokens": 19}, model=model_name, stream=True)
    assert raw.headers["x-nunchi-cache"] == "hit"
    text = "".join(c.choices[0].delta.content or "" for c in raw.parse() if c.choices)
    assert text == whole["choices"][0]["message"]["content"]
