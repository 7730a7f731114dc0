"""Traces as a collector gets them: a recording endpoint, read with the official messages of OpenTelemetry."""
import base64
import collections
import http.server
import json
import os
import re
import threading

import pytest

from conftest import running, until

json_format = pytest.importorskip("google.protobuf.json_format")
pytest.importorskip("opentelemetry.proto")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest  # noqa: E402
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status  # noqa: E402

SECRET = "quokkas juggle marzipan lanterns"
Got = collections.namedtuple("Got", "service span")


def with_real_ids(value):
    """Ids are hex in OTLP's JSON and base64 in protobuf's."""
    if isinstance(value, list):
        return [with_real_ids(v) for v in value]
    if isinstance(value, dict):
        return {k: base64.b64encode(bytes.fromhex(v)).decode() if k in ("traceId", "spanId", "parentSpanId") else with_real_ids(v)
                for k, v in value.items()}
    return value


class Collector:
    def __init__(self):
        self.bodies, self.paths, self.spans, self.status = [], set(), [], 200
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if collector.status == 200:
                    collector.take(self.path, self.headers["Content-Type"], body)
                self.send_response(collector.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path, kind, body):
        assert kind == "application/json"
        self.paths.add(path)
        self.bodies.append(body)
        m = json_format.ParseDict(with_real_ids(json.loads(body)), ExportTraceServiceRequest())
        for r in m.resource_spans:
            service = {a.key: a.value.string_value for a in r.resource.attributes}["service.name"]
            self.spans += [Got(service, s) for scope in r.scope_spans for s in scope.spans]

    def of(self, trace):
        return [g for g in list(self.spans) if g.span.trace_id == trace]


@pytest.fixture(scope="module")
def collector():
    c = Collector()
    yield c
    c.server.shutdown()
    c.server.server_close()


@pytest.fixture(scope="module")
def traced(tmp_path_factory, collector):
    wanted = {"NUNCHI_OTLP": collector.url, "NUNCHI_TRACE_RATIO": "0"}
    before = {k: os.environ.get(k) for k in wanted}
    os.environ.update(wanted)
    try:
        with running(tmp_path_factory.mktemp("traced")) as cluster:
            yield cluster
    finally:
        for k, v in before.items():
            os.environ.pop(k) if v is None else os.environ.update({k: v})


def ask(cluster, trace, flags, n, **more):
    body = {"model": cluster.openai().models.list().data[0].id, "max_tokens": n, "temperature": 0, "ignore_eos": True,
            "messages": [{"role": "user", "content": SECRET}], **more}
    status, _, reply = cluster.post_json("/v1/chat/completions", body, {"traceparent": f"00-{trace.hex()}-00f067aa0ba902b7-{flags:02x}",
                                                                       "Cache-Control": "no-store"})
    assert status == 200, reply
    return reply


def attributes(span):
    return {a.key: a.value.int_value or a.value.string_value for a in span.attributes}


def test_one_request_from_the_gateway_to_the_steps(traced, collector):
    trace = bytes(range(1, 17))
    reply = ask(traced, trace, 1, 12)
    until(lambda: any(g.service == "nunchi-gateway" and g.span.kind == Span.SPAN_KIND_SERVER for g in collector.of(trace)), 30, "the root")
    until(lambda: {g.service for g in collector.of(trace)} == {"nunchi-gateway", "nunchi-tokenizer", "nunchi-model"}, 30, "all services")
    got = collector.of(trace)
    assert collector.paths == {"/v1/traces"}
    ids = {g.span.span_id: g for g in got}
    assert len(ids) == len(got) and all(len(i) == 8 for i in ids)
    by_name = collections.defaultdict(list)
    for g in got:
        by_name[g.service, g.span.name].append(g.span)
        assert g.span.end_time_unix_nano >= g.span.start_time_unix_nano > 0
        assert g.span.status.code == Status.STATUS_CODE_UNSET

    root, = by_name["nunchi-gateway", "/v1/chat/completions"]
    assert root.parent_span_id.hex() == "00f067aa0ba902b7"  # what the client said
    assert attributes(root)["gen_ai.usage.output_tokens"] == reply["usage"]["completion_tokens"] == 12
    stages = ["tokenize", "wait for a worker", "generate"]
    assert {n for s, n in by_name if s == "nunchi-gateway"} == {*stages, "/v1/chat/completions"}
    for name in stages:
        span, = by_name["nunchi-gateway", name]
        assert span.parent_span_id == root.span_id
    assert attributes(by_name["nunchi-gateway", "generate"][0])["nunchi.worker"]

    # Each service's own span lies below the gateway's that asked it, and within its time (clocks of one host).
    for service, name in (("nunchi-tokenizer", "tokenize"), ("nunchi-model", "generate")):
        span, = by_name[service, name]
        above, = by_name["nunchi-gateway", name]
        assert span.parent_span_id == above.span_id and span.kind == Span.SPAN_KIND_SERVER
        slack = 50_000_000
        assert above.start_time_unix_nano - slack <= span.start_time_unix_nano and span.end_time_unix_nano <= above.end_time_unix_nano + slack

    model, = by_name["nunchi-model", "generate"]
    for phase in ("queue", "prefill", "decode"):
        span, = by_name["nunchi-model", phase]
        assert span.parent_span_id == model.span_id
    steps = by_name["nunchi-model", "step"]
    assert all(s.parent_span_id == model.span_id for s in steps)
    rows = sum(attributes(s)["nunchi.rows"] for s in steps)
    said = attributes(model)
    # Every row that was computed for it is in one of the steps: its prompt, its tokens but the last, and guesses.
    assert rows == said["gen_ai.usage.input_tokens"] - (said["nunchi.cached_tokens"] or 0) + 11 \
        + (said["nunchi.drafted_tokens"] or 0) - (said["nunchi.accepted_tokens"] or 0)


def test_a_look_into_the_result_cache(traced, collector):
    trace = b"\x12" * 16
    body = {"model": traced.openai().models.list().data[0].id, "max_tokens": 3, "temperature": 0, "messages": [{"role": "user", "content": SECRET + "!"}]}
    assert traced.post_json("/v1/chat/completions", body, {"traceparent": f"00-{trace.hex()}-00f067aa0ba902b7-01"})[0] == 200
    until(lambda: any(g.service == "nunchi-cache" for g in collector.of(trace)), 30, "the cache's span")
    until(lambda: any(g.service == "nunchi-gateway" and g.span.name == "generate" for g in collector.of(trace)), 30, "the gateway's spans")
    above, = [g.span for g in collector.of(trace) if g.service == "nunchi-gateway" and g.span.name == "look up the answer"]
    assert above.span_id in {g.span.parent_span_id for g in collector.of(trace) if g.service == "nunchi-cache"}


def test_nothing_of_what_was_written(traced, collector):
    ask(traced, b"\x77" * 16, 1, 4)
    until(lambda: collector.of(b"\x77" * 16), 30, "its spans")
    for body in collector.bodies:
        assert not [word for word in SECRET.split() if word.encode() in body]


def test_who_does_not_want_it_is_not_traced(traced, collector):
    off, on = b"\x55" * 16, b"\x66" * 16
    ask(traced, off, 0, 4)  # the client says no
    ask(traced, on, 1, 4)
    until(lambda: any(g.span.name == "/v1/chat/completions" for g in collector.of(on)), 30, "the later one")
    until(lambda: any(g.service == "nunchi-model" for g in collector.of(on)), 30, "the later one's worker")
    assert not collector.of(off)


def test_probes_are_not_traced(traced, collector):
    probe, question = b"\x22" * 16, b"\x23" * 16
    for path in ("/healthz", "/readyz", "/metrics", "/none"):
        traced.request("GET", path, headers={"traceparent": f"00-{probe.hex()}-00f067aa0ba902b7-01"})
    ask(traced, question, 1, 4)
    until(lambda: any(g.span.name == "/v1/chat/completions" for g in collector.of(question)), 30, "the later one")
    assert not collector.of(probe)


def test_a_collector_that_is_away_costs_nothing_but_spans(traced, collector):
    collector.status = 503
    try:
        ask(traced, b"\x44" * 16, 1, 4)
        for service in ("gateway", "tokenizer", "model-1"):  # each has lost its spans of it by then
            until(lambda: "traces cannot be delivered" in traced.log(service), 30, f"the log of {service} to say so")
        until(lambda: re.search(r'nunchi_trace_spans_total{result="lost"} [1-9]', traced.get("/metrics")[2].decode()), 30, "the count")
    finally:
        collector.status = 200
    ask(traced, b"\x33" * 16, 1, 4)
    until(lambda: collector.of(b"\x33" * 16), 30, "spans again")
    assert "traces are delivered again" in traced.log("gateway")
