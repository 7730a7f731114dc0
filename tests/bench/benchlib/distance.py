"""The part kl: how far the answers of both are from float32 arithmetic on the same weights.

`kl_bench` computes float32's distributions with the reference backend, keeps them in the form that llama-perplexity reads, and measures
nunchi's distance; llama-perplexity then measures its own on the same positions:

    kl_bench MODEL.gguf TEXT... --positions 4000 --base BASE
    llama-perplexity -m MODEL.gguf --kl-divergence --kl-divergence-base BASE
"""
import json
import re
import tempfile

from . import shell
from .ours import TITLES

TEXTS = ["/usr/share/common-licenses/GPL-3", "/usr/share/common-licenses/GPL-2"]
POSITIONS = 4000


def of_peer(text):
    """Mean divergence and share of equal most likely tokens, from what llama-perplexity prints."""
    mean = re.search(r"Mean\s+KLD:\s+(-?[\d.]+)\s+±\s+([\d.]+)", text)
    top = re.search(r"Same top p:\s+([\d.]+)", text)
    if not mean or not top:
        raise RuntimeError("llama-perplexity printed no divergence:\n" + text[-2000:])
    return float(mean[1]), float(mean[2]), float(top[1])


def kl(pair, keys):
    n = pair.ours
    for key in keys:
        if key not in ("smollm2", "gemma"):
            continue  # the others' weights are random
        with tempfile.TemporaryDirectory(prefix="nunchi-bench-", dir=n.build) as folder:
            base = f"{folder}/base"
            got = json.loads(shell.output(n.build / "tests/bench/kl_bench", n.model(key), *TEXTS, "--positions", POSITIONS, "--threads", n.threads,
                                          *(["--base", base] if pair.peer else [])))
            peer = None
            if pair.peer:
                peer = of_peer(shell.output(pair.peer.folder / "llama-perplexity", "-m", n.model(key), "-t", n.threads, "--kl-divergence",
                                            "--kl-divergence-base", base))
        row = {"model": TITLES[key], "unit": "", "detail": {"ours": got, "peer": peer}}
        yield row | {"what": "mean KL divergence from float32", "ours": got["mean_kl"], "peer": peer and peer[0], "more_is_better": False}
        yield row | {"what": "same most likely token", "unit": "%", "ours": 100 * got["same_top"], "peer": peer and peer[2]}
