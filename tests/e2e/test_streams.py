"""Many at once get what each would get alone; who leaves is noticed."""
import concurrent.futures
import http.client
import json

from conftest import SLOW, until

PROMPTS = ["What is the capital of France?", "Tell me about the sea.", "서울은 어떤 도시인가요?", "Write a poem about rain.",
           "List three colours.", "Why is the sky blue?", "How do I cook rice?", "What is 2 + 2?", "Describe a cat.",
           "Who wrote Hamlet?", "Explain gravity simply.", "Name a river in Korea.", "What is a prime number?",
           "Tell me a joke.", "How long is a day?", "What do bees do?"]


def ask(client, model, i):
    prompt = PROMPTS[i] + " Context: " + " ".join(PROMPTS[: i % 5])
    stream = client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}], max_tokens=24, stream=True,
                                            temperature=0.8 if i % 2 else 0, seed=i, extra_headers={"Cache-Control": "no-store"})
    return "".join(c.choices[0].delta.content or "" for c in stream if c.choices)


def test_sixteen_streams_equal_those_asked_alone(client, model_name):
    alone = [ask(client, model_name, i) for i in range(16)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda i: ask(client, model_name, i), range(16)))
    assert together == alone
    assert all(alone)


def start_stream(cluster, model, tokens):
    c = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=60 * SLOW)
    body = {"model": model, "stream": True, "max_tokens": tokens, "ignore_eos": True, "temperature": 0,
            "messages": [{"role": "user", "content": "Tell me a very long story."}]}
    c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json", "Cache-Control": "no-store"})
    r = c.getresponse()
    assert r.status == 200
    r.readline()
    return c, r


def test_a_client_that_leaves_is_noticed(cluster, model_name):
    before = cluster.metric("nunchi_gateway_requests_cancelled_total")
    c, r = start_stream(cluster, model_name, 4000)
    until(lambda: cluster.metric("nunchi_gateway_requests_running") == 1, 10, "the request to run")
    r.close()
    c.close()
    until(lambda: cluster.metric("nunchi_gateway_requests_cancelled_total") == before + 1, 2, "the leaving to be noticed")
    until(lambda: cluster.metric("nunchi_gateway_requests_running") == 0, 2, "the request to end")


def test_a_reader_that_is_slow_loses_nothing(cluster, model_name):
    c, r = start_stream(cluster, model_name, 300)
    text = b""
    while True:
        piece = r.read1(64)
        if not piece:
            break
        text += piece
    c.close()
    assert text.rstrip().endswith(b"data: [DONE]")
