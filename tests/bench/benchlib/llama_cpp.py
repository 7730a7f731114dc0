"""llama.cpp, the named peer (tests/bench/build-peer): its own benchmark programs, with the settings that suit it best.

A setting is a dict of words of its command line. Which is best differs by model and row, so each row is tried with all of them once,
and the best is used from then on (the choice is kept in a file beside the results)."""
import itertools
import json

from . import shell


def every(**choices):
    return [dict(zip(choices, values)) for values in itertools.product(*choices.values())]


PREFILL = every(fa=["0", "1"], ub=["512"], repack=["1", "0"]) + [{"fa": "0", "ub": "128", "repack": "1"}]
DECODE = every(fa=["0", "1"], repack=["1", "0"]) + [{"fa": "0", "repack": "1", "poll": "100"}]
BATCH = every(fa=["0", "1"], repack=["1", "0"], kvu=["0"]) + [{"fa": "1", "repack": "1", "kvu": "1"}]
LONG = every(fa=["0", "1"], repack=["1"])


class LlamaCpp:
    """Speeds are (tokens a second, share of the machine that others took)."""

    def __init__(self, folder, threads):
        self.folder, self.threads = folder, threads

    def bench(self, model, setting, prompt, gen, repeat, depth=0):
        words = [self.folder / "llama-bench", "-m", model, "-t", self.threads, "-p", prompt, "-n", gen, "-r", repeat, "-d", depth, "-o", "jsonl"]
        for key, value in setting.items():
            words += [{"fa": "-fa", "ub": "-ub", "repack": "--repack", "poll": "--poll", "kv": "-ctk"}[key], value]
            if key == "kv":
                words += ["-ctv", value]
        text, others = shell.measured(*words)
        return max(shell.json_lines(text)[-1]["samples_ts"]), others

    def prefill(self, model, setting, prompt=512, repeat=2):
        return self.bench(model, setting, prompt, 0, repeat)

    def decode(self, model, setting, gen=48, repeat=2, depth=0):
        return self.bench(model, setting, 0, gen, repeat, depth)

    def batch(self, model, setting, sequences, prompt=64, gen=32):
        """Tokens a second of all sequences together, after prompts of their own."""
        words = [self.folder / "llama-batched-bench", "-m", model, "-t", self.threads, "-c", sequences * (prompt + gen), "-npp", prompt,
                 "-ntg", gen, "-npl", sequences, "--output-format", "jsonl", "-fa", ["off", "on"][int(setting["fa"])]]
        words += ["--repack" if setting["repack"] == "1" else "--no-repack"] + (["-kvu"] if setting["kvu"] == "1" else ["-no-kvu"])
        text, others = shell.measured(*words)
        return shell.json_lines(text)[-1]["speed_tg"], others
