"""What every service of a running cluster says of itself, read as Prometheus reads it, and the dashboard and the scaling rules made of it."""
import http.client
import json
import os
import pathlib
import re

import pytest
import yaml

import videos
from conftest import running, until

parser = pytest.importorskip("prometheus_client.parser")
ROOT = pathlib.Path(__file__).resolve().parents[2]
WATCHED = ("tokenizer", "video", "model-1", "cache")


def get(port, path):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        c.request("GET", path)
        r = c.getresponse()
        return r.status, r.read().decode()
    finally:
        c.close()


class Watched:
    """A cluster whose services all listen for watchers, each at a free port, which its log names."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.ports = {name: until(lambda n=name: self.port_in_log(n), 30, f"the port of {name}") for name in WATCHED}

    def port_in_log(self, name):
        found = re.search(r'"msg":"metrics".*?"port":(\d+)', self.cluster.log(name))
        return int(found.group(1)) if found else 0

    def texts(self):
        return {"gateway": self.cluster.get("/metrics")[2].decode(), **{n: get(p, "/metrics")[1] for n, p in self.ports.items()}}

    def families(self):
        return {name: {f.name: f for f in parser.text_string_to_metric_families(text)} for name, text in self.texts().items()}

    def value(self, service, name, **labels):
        return sum(s.value for f in self.families()[service].values() for s in f.samples
                   if s.name == name and all(s.labels.get(k) == v for k, v in labels.items()))


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    before = os.environ.get("NUNCHI_METRICS")
    os.environ["NUNCHI_METRICS"] = "127.0.0.1:0"
    try:
        with running(tmp_path_factory.mktemp("watched")) as cluster:
            yield Watched(cluster)
    finally:
        if before is None:
            del os.environ["NUNCHI_METRICS"]
        else:
            os.environ["NUNCHI_METRICS"] = before


def test_they_count_what_was_done(watched, tmp_path):
    client = watched.cluster.openai()
    file = videos.make(tmp_path / "a.mp4", [("blue", "harbour")], seconds=2)
    with open(file, "rb") as f:
        up = client.files.create(file=f, purpose="vision")
    until(lambda: client.files.retrieve(up.id).status == "processed", 60, "the file to be read")
    prompt = "Say something about the sea. " * 20
    answers = [client.chat.completions.create(model=client.models.list().data[0].id, max_tokens=8, temperature=0, seed=i,
                                              messages=[{"role": "user", "content": prompt + str(i)}])
               for i in range(4)]
    generated = sum(a.usage.completion_tokens for a in answers)
    asked = sum(a.usage.prompt_tokens for a in answers)
    assert watched.value("gateway", "nunchi_gateway_completion_tokens_total") == generated
    assert watched.value("model-1", "nunchi_model_tokens_total", kind="generated") == generated
    assert watched.value("model-1", "nunchi_model_tokens_total", kind="prompt") == asked
    assert watched.value("model-1", "nunchi_model_tokens_total", kind="cached") > asked / 2  # the prompts are nearly the same
    assert watched.value("gateway", "nunchi_gateway_placed_total", prefix="warm") == 3
    assert watched.value("gateway", "nunchi_gateway_placed_total", prefix="cold") == 1
    assert watched.value("model-1", "nunchi_model_requests_total", result="done") == 4
    assert watched.value("model-1", "nunchi_model_step_seconds_count") == watched.value("model-1", "nunchi_model_steps_total") > 0
    assert watched.value("tokenizer", "nunchi_tokenizer_requests_total", result="done") == 4
    assert watched.value("video", "nunchi_video_files_total", result="done") == 1
    assert watched.value("cache", "nunchi_cache_redis_up") == 1
    until(lambda: watched.value("cache", "nunchi_cache_puts_total", kind="kv") > 0, 30, "KV blocks to be given to the cache")


def test_all_say_who_they_are(watched):
    for name, families in watched.families().items():
        assert families["process_cpu_seconds"].samples[0].value > 0, name
        assert families["process_resident_memory_bytes"].samples[0].value > 1e6, name
        messages = {s.labels["direction"]: s.value for s in families["nunchi_wire_messages"].samples}
        assert messages["sent"] > 0 and messages["received"] > 0, name
        for family in families.values():
            assert family.documentation, f"{name}: {family.name} has no help"
            assert family.type in ("counter", "gauge", "histogram"), f"{name}: {family.name} {family.type}"


def test_probes(watched):
    for name, port in watched.ports.items():
        assert get(port, "/healthz")[0] == 200, name
        assert get(port, "/readyz")[0] == 200, name
        assert get(port, "/")[0] == 404, name


def test_a_worker_without_a_gateway_is_not_ready(watched):
    c = watched.cluster
    old = c.kill("gateway")
    until(lambda: get(watched.ports["model-1"], "/readyz")[0] == 503 or c.pid("gateway") not in (0, old), 30, "the worker to say no")
    c.wait_restarted("gateway", old)
    c.wait_ready()
    until(lambda: get(watched.ports["model-1"], "/readyz")[0] == 200, 30, "the worker to be ready again")


def names_in(expression):
    return set(re.findall(r"\b((?:nunchi|process)_\w+)", expression))


def test_dashboard_and_scaling_are_made_of_what_is_there(watched):
    there = {s.name for families in watched.families().values() for f in families.values() for s in f.samples}
    board = json.loads((ROOT / "deploy" / "grafana" / "nunchi.json").read_text())
    shown = {n for p in board["panels"] for t in p.get("targets", []) for n in names_in(t["expr"])}
    assert shown <= there, sorted(shown - there)
    ours = {n for n in there if not n.endswith(("_bucket", "_sum", "_count", "_created"))}
    assert not {n for n in ours if n.startswith("nunchi_")} - shown - UNSHOWN, sorted(ours - shown - UNSHOWN)
    scaled = {m["pods"]["metric"]["name"] for d in yaml.safe_load_all((ROOT / "deploy" / "k8s" / "model.yaml").read_text())
              if d["kind"] == "HorizontalPodAutoscaler" for m in d["spec"]["metrics"]}
    assert scaled and scaled <= there, sorted(scaled - there)


# Told, and on no panel: what others on the board say better, or too rare for a graph.
UNSHOWN = {"nunchi_gateway_requests_total", "nunchi_model_requests_running", "nunchi_model_requests_queued", "nunchi_cache_requests_total",
           "nunchi_cache_failed_total", "nunchi_cache_running", "nunchi_cache_puts_total", "nunchi_cache_evicted_total",
           "nunchi_cache_files_expired_total", "nunchi_cache_orphans_total", "nunchi_tokenizer_requests_total", "nunchi_tokenizer_running",
           "nunchi_tokenizer_waiting_bytes", "nunchi_video_slots"}
