"""nunchi, as it is measured: its own benchmark command, and clusters started with its own command."""
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from . import shell

ROOT = pathlib.Path(__file__).resolve().parents[3]
KNOWN = {"smollm2": ("SmolLM2-135M Q4_1", "SmolLM2-135M-Instruct.Q4_1.gguf"), "gemma": ("Gemma 3 270M Q4_K_M", "gemma-3-270m-q4_k_m.gguf")}
MADE = {"bench1b-q8_0": "Q8_0", "bench1b-q4_k_m": "Q4_K_M", "bench1b-q4_0": "Q4_0"}
TITLES = {k: v[0] for k, v in KNOWN.items()} | {k: f"bench1b {v}" for k, v in MADE.items()}
NAMES = {"smollm2": "smollm2", "gemma": "gemma3-270m"}  # as `nunchi model fetch` knows them


class Nunchi:
    """Speeds are (result, share of the machine that others took)."""

    def __init__(self, build, models, threads):
        self.build, self.models, self.threads = build, models, threads
        self.limits = {}

    def model(self, key):
        """Its file: fetched with our own command, or made of random weights, the first time."""
        if key in KNOWN:
            given = self.models and self.models / KNOWN[key][1]
            return given if given and given.exists() else pathlib.Path(shell.output(self.build / "bin/nunchi", "model", "fetch", NAMES[key]).strip())
        path = (self.models or self.build / "bench-models") / f"{key}.gguf"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run([sys.executable, ROOT / "tests/bench/make-model", "--type", MADE[key], "--vocabulary", self.model("smollm2"), path],
                           check=True)
        return path

    def bench(self, key, *, prompt=512, gen=48, context=64, batch=(1,), repeat=2, isa=None):
        words = [self.build / "bin/nunchi", "bench", "--json", "--model", self.model(key), "--threads", self.threads, "--prompt", prompt,
                 "--gen", gen, "--context", context, "--batch", ",".join(map(str, batch)), "--repeat", repeat]
        text, others = shell.measured(*words, *(["--isa", isa] if isa else []))
        got = json.loads(text)
        for name, value in got["limits"].items():
            kept = self.limits.setdefault(got["isa"], {})
            kept[name] = max(kept.get(name) or 0, value or 0)
        return got, others

    @contextlib.contextmanager
    def cluster(self, key, *words):
        """A cluster of its own, whose address and processes are given."""
        with tempfile.TemporaryDirectory(prefix="nunchi-bench-") as home:
            env = {"NUNCHI_HOME": home}
            model = self.model(key)
            shell.output(self.build / "bin/nunchi", "up", "--port", 0, "--model", model, *words, env=env)
            try:
                state = json.loads((pathlib.Path(home) / "run/cluster.json").read_text(encoding="utf-8"))
                yield f"http://127.0.0.1:{state['port']}", state["services"]
            finally:
                shell.output(self.build / "bin/nunchi", "down", env=env)


def memory(pid):
    """Resident, proportional and private anonymous bytes of a process."""
    kept = {}
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, value = line.split(":")
        kept[name] = int(value.split()[0]) * 1024
    return {"rss": kept["Rss"], "pss": kept["Pss"], "anonymous": kept["Anonymous"]}


def machine():
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    told = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in lines}
    cpu = f"{told['model name']} (family {told['cpu family']}, model {told['model']})"
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cpu": cpu, "processors": os.cpu_count(), "memory_gb": round(pages / 1e9, 1)}
