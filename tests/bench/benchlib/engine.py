"""The parts that measure the engine alone: engine, long, avx2."""
from . import llama_cpp, shell
from .ours import TITLES

BATCHES = (1, 4, 16)
LONG_CONTEXT = 8192 - 64


class Pair:
    """Both engines by turns, so that a busy neighbour hits both; the best of the rounds of each."""

    def __init__(self, ours, peer, choices, rounds):
        self.ours, self.peer, self.choices, self.rounds = ours, peer, choices, rounds

    def setting(self, key, what, settings, run):
        """The peer's best setting for this row: found once, then kept."""
        name = f"{key} {what}"
        if name not in self.choices:
            tried = [(shell.best(lambda s=s: run(s), tries=2)[0], s) for s in settings]
            self.choices[name] = max(tried, key=lambda t: t[0])[1]
        return self.choices[name]

    def row(self, key, what, mine, theirs, settings, share):
        """mine() -> one rate of `nunchi bench`, others; theirs(setting) -> tokens a second, others."""
        best, peer_speed, chosen = None, None, None
        seen = {"ours": [], "peer": []}
        if self.peer:
            chosen = self.setting(key, what, settings, theirs)
        for _ in range(self.rounds):
            rate, others = shell.best(mine, speed=lambda r: r["tok_s"])
            best = rate if best is None or rate["tok_s"] > best["tok_s"] else best
            seen["ours"].append(round(others, 3))
            if self.peer:
                speed, others = shell.best(lambda: theirs(chosen))
                peer_speed = max(speed, peer_speed or 0)
                seen["peer"].append(round(others, 3))
        return {"model": TITLES[key], "what": what, "unit": "tok/s", "ours": best["tok_s"], "peer": peer_speed, "peer_setting": chosen,
                "share": best.get(share), "share_of": share.removeprefix("share_of_"), "detail": best, "others": seen}


def prefill_of(pair, key, isa=None):
    def run():
        got, others = pair.ours.bench(key, gen=1, batch=(1,), repeat=3, isa=isa)
        return got["prefill"], others
    return run


def decode_of(pair, key, batch, context=64, gen=48, isa=None):
    def run():
        got, others = pair.ours.bench(key, prompt=16, gen=gen, context=context, batch=(batch,), repeat=3, isa=isa)
        return got["decode"][0], others
    return run


def engine(pair, keys):
    for key in keys:
        model = pair.ours.model(key)
        yield pair.row(key, "prefill 512", prefill_of(pair, key), lambda s, m=model: pair.peer.prefill(m, s), llama_cpp.PREFILL, "share_of_int8")
        yield pair.row(key, "decode, 1 sequence", decode_of(pair, key, 1), lambda s, m=model: pair.peer.decode(m, s), llama_cpp.DECODE,
                       "share_of_bandwidth")
        for n in BATCHES[1:]:
            yield pair.row(key, f"decode, {n} sequences", decode_of(pair, key, n), lambda s, m=model, n=n: pair.peer.batch(m, s, n),
                           llama_cpp.BATCH, "share_of_limit")


def long(pair, keys):
    """Decoding with a long past. The peer computes it first (a minute and more); ours copies blocks of a shorter one."""
    for key in keys:
        if key in ("gemma", "bench1b-q8_0", "bench1b-q4_0"):
            model = pair.ours.model(key)
            yield pair.row(key, "decode at 8k", decode_of(pair, key, 1, context=LONG_CONTEXT, gen=32),
                           lambda s, m=model: pair.peer.decode(m, s, gen=32, depth=LONG_CONTEXT), llama_cpp.LONG, "share_of_limit")


def avx2(pair, keys):
    """Both without AVX-512: the peer's own build for AVX2 beside --isa avx2."""
    for key in keys:
        model = pair.ours.model(key)
        yield pair.row(key, "prefill 512, AVX2", prefill_of(pair, key, "avx2"), lambda s, m=model: pair.peer.prefill(m, s), llama_cpp.PREFILL,
                       "share_of_int8")
        yield pair.row(key, "decode, 1 sequence, AVX2", decode_of(pair, key, 1, isa="avx2"), lambda s, m=model: pair.peer.decode(m, s),
                       llama_cpp.DECODE, "share_of_bandwidth")
