"""The part speculation: what guessing ahead brings on questions about notes, beside not guessing."""
import json

from . import shell
from .ours import TITLES


def speculation(pair, keys):
    n = pair.ours
    for key in keys:
        if key not in ("smollm2", "gemma"):
            continue  # random weights quote nothing
        text, others = shell.measured(n.build / "tests/bench/notes_bench", n.model(key), "--threads", n.threads, "--repeat", 2)
        got = json.loads(text)
        for field, what in (("one_by_one", "questions about notes, one by one"), ("together", "questions about notes, all at once")):
            yield {"model": TITLES[key], "what": what + " (right: without guesses)", "unit": "tok/s", "ours": got[field]["tok_s_with"],
                   "peer": got[field]["tok_s_without"], "detail": got[field], "others": {"ours": [round(others, 3)]}}
