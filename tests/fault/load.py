"""A steady load on a cluster, each answer known beforehand: whatever happens to the services meanwhile, what comes is compared byte for
byte, and counted as lost, wrong or refused."""
import collections
import http.client
import json
import threading
import time

NO_STORE = {"Cache-Control": "no-store", "Content-Type": "application/json"}
HEAD = "You keep the log of a lighthouse. Answer in plain words, and do not make things up. "

# All that may change an answer, alone and together.
KINDS = [
    {"seed": 1, "temperature": 0.9, "max_tokens": 40, "stream": True},
    {"seed": 2, "temperature": 0.0, "max_tokens": 30, "stream": True},
    {"seed": 3, "temperature": 1.0, "max_tokens": 24, "stream": True, "n": 2},
    {"seed": 4, "temperature": 0.8, "max_tokens": 40, "presence_penalty": 0.6, "frequency_penalty": 0.4, "stream": True},
    {"seed": 5, "temperature": 0.7, "max_tokens": 48, "stop": ["the sea", ".", " and the"], "stream": True},
    {"seed": 6, "temperature": 0.9, "max_tokens": 20, "logprobs": True, "top_logprobs": 3, "stream": True},
    {"seed": 7, "temperature": 0.9, "max_tokens": 32},
    {"seed": 8, "temperature": 1.1, "max_tokens": 24, "repetition_penalty": 1.2, "logit_bias": {"30": -5}, "n": 2, "logprobs": True},
]


def question(i):
    """The i-th request: kinds in turn, some of them with a long beginning in common."""
    kind = dict(KINDS[i % len(KINDS)])
    kind["seed"] += 100 * (i // len(KINDS))
    head = HEAD * (12 if i % 3 == 0 else 1)
    return {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": f"{head}What was night number {i} like?"}], **kind}


class Refused(Exception):
    """An honest no: 429 or 503 with a time to come back, before anything was said."""


class Lost(Exception):
    pass


class Unanswered(Lost):
    """The connection ended before the first byte of an answer: where a gateway is killed, a load balancer asks another."""


class Unreachable(Exception):
    """No connection: a load balancer would have gone elsewhere."""


LATE_S = 60  # an answer takes some seconds; the longest fault here lasts 5


def read_events(response):
    begun = time.monotonic()
    for line in response:
        if time.monotonic() - begun > LATE_S:
            raise Lost(f"not answered within {LATE_S} s")
        if line.startswith(b"data: "):
            if line.strip() == b"data: [DONE]":
                return
            event = json.loads(line[6:])
            if "error" in event:
                raise Lost(f"error event: {event['error']['message']}")
            yield event
    raise Lost("the stream ended without [DONE]")


class Answer:
    """What was said, choice by choice: text, log probabilities, how it ended. And when."""

    def __init__(self):
        self.text = collections.defaultdict(str)
        self.logprobs = collections.defaultdict(list)
        self.end = {}
        self.gap = 0.0

    def key(self):
        return json.dumps([self.text, self.logprobs, self.end], sort_keys=True)

    def add(self, choice):
        i = choice["index"]
        self.text[i] += (choice.get("delta") or choice.get("message") or {}).get("content") or ""
        self.logprobs[i] += [[t["token"], t["logprob"]] for t in (choice.get("logprobs") or {}).get("content") or []]
        if choice.get("finish_reason"):
            if i in self.end:
                raise Lost(f"choice {i} ended twice")
            self.end[i] = choice["finish_reason"]


def ask(port, body, timeout=120):
    answer = Answer()
    try:
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        c.connect()
    except OSError as e:
        raise Unreachable(str(e)) from e
    try:
        try:
            c.request("POST", "/v1/chat/completions", json.dumps(body), NO_STORE)
            r = c.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected) as e:
            raise Unanswered(f"{type(e).__name__}: {e}") from e
        if r.status in (429, 503) and r.getheader("Retry-After"):
            raise Refused(r.status)
        if r.status != 200:
            raise Lost(f"{r.status}: {r.read()[:300]}")
        last = time.monotonic()
        for event in read_events(r) if body.get("stream") else [json.loads(r.read())]:
            now = time.monotonic()
            answer.gap = max(answer.gap, now - last)
            last = now
            for choice in event["choices"]:
                answer.add(choice)
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise Lost(f"{type(e).__name__}: {e}") from e
    finally:
        c.close()
    if len(answer.end) != body.get("n", 1):
        raise Lost("a choice did not end")
    return answer


class Load:
    """`streams` clients that ask one question after another, of those whose answers are known, until told to stop. ports: a function
    that names where to ask, first choice first; the next is taken when nobody listens there."""

    def __init__(self, ports, n_questions=24, streams=6, gateway_is_killed=False):
        self.gateway_is_killed = gateway_is_killed
        self.ports, self.questions, self.streams = ports, [question(i) for i in range(n_questions)], streams
        self.known = {}
        self.counts = collections.Counter()
        self.gaps, self.complaints = [], []
        self.lock = threading.Lock()
        self.stop = threading.Event()

    def learn(self):
        """The undisturbed answers."""
        for i, q in enumerate(self.questions):
            self.known[i] = ask(self.ports()[0], q).key()

    def one(self, i):
        """One question, for as long as it is refused honestly."""
        for attempt in range(600):
            ports = self.ports()
            try:
                answer = ask(ports[(i + attempt) % len(ports)], self.questions[i])
            except (Refused, Unreachable) as e:
                with self.lock:
                    self.counts["refused" if isinstance(e, Refused) else "unreachable"] += 1
                if self.stop.wait(0.05) and attempt > 200:
                    break
                continue
            except Lost as e:
                if self.gateway_is_killed and isinstance(e, Unanswered):
                    with self.lock:
                        self.counts["unanswered"] += 1
                    continue
                with self.lock:
                    self.counts["lost"] += 1
                    self.complaints.append(f"question {i}: {e}")
                return
            with self.lock:
                self.counts["answered"] += 1
                self.gaps.append(answer.gap)
                if answer.key() != self.known[i]:
                    self.counts["wrong"] += 1
                    self.complaints.append(f"question {i}: {answer.key()[:400]}\n    instead of {self.known[i][:400]}")
            return
        with self.lock:
            self.counts["lost"] += 1
            self.complaints.append(f"question {i}: refused until the end")

    def client(self, k):
        i = k
        while not self.stop.is_set():
            self.one(i % len(self.questions))
            i += self.streams

    def __enter__(self):
        self.threads = [threading.Thread(target=self.client, args=(k,)) for k in range(self.streams)]
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for t in self.threads:
            t.join()

    def answered(self):
        with self.lock:
            return self.counts["answered"]

    def report(self):
        gaps = sorted(self.gaps) or [0]
        return {**{k: self.counts[k] for k in ("answered", "lost", "wrong", "refused", "unreachable", "unanswered")},
                "longest_gap_ms": {"p50": round(1000 * gaps[len(gaps) // 2]), "p99": round(1000 * gaps[len(gaps) * 99 // 100]),
                                   "max": round(1000 * gaps[-1])}}

    def check(self):
        assert self.counts["lost"] == 0 and self.counts["wrong"] == 0, "\n".join([str(self.report()), *self.complaints[:5]])
