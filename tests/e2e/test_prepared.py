"""Prepared weights: written once, shared, and never trusted for longer than their checksums hold."""
import contextlib
import json
import os
import re
import resource
import subprocess

import pytest

from conftest import BUILD, SLOW, SMOLLM2, until


class Worker:
    """One nunchi-model that looks for a gateway that is not there; it loads its model all the same."""

    def __init__(self, model, home, *args, limit=None):
        self.log = open(home.parent / f"{os.urandom(4).hex()}.log", "w+")
        self.process = subprocess.Popen(
            [BUILD / "bin" / "nunchi-model", "--model", model, "--gateways", "127.0.0.1:1", "--insecure-network",
             "--kv-bytes", "8m", *args], env=dict(os.environ, NUNCHI_HOME=str(home)), stdin=subprocess.DEVNULL,
            stderr=self.log, preexec_fn=limit)

    def lines(self):
        self.log.seek(0)
        return [json.loads(line) for line in self.log.read().splitlines() if line.endswith("}")]

    def said(self, text):
        return next((line for line in self.lines() if line["msg"].startswith(text)), None)

    def ready(self):
        until(lambda: self.said("ready") or self.process.poll() is not None, 60, "a worker to be ready")
        assert self.process.poll() is None, self.lines()
        return self.said("ready")

    def prepared_it(self):
        return any(line["msg"] == "loading" and line["what"] == "prepare" for line in self.lines())

    def rollup(self):
        with open(f"/proc/{self.process.pid}/smaps_rollup") as f:
            return {key: int(n) for key, n in re.findall(r"^(\w+): +(\d+) kB", f.read(), re.M)}

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(30 * SLOW)
        self.log.close()
        return code


@pytest.fixture
def place(tmp_path):
    """A folder with a model of its own (a link to the real one), an empty home, and a way to start workers there."""
    with contextlib.ExitStack() as stack:
        class Place:
            model, home = tmp_path / "m" / "m.gguf", tmp_path / "home"
            prepared = tmp_path / "m" / "m.gguf.prepared"

            def start(self, *args, **kw):
                w = Worker(self.model, self.home, *args, **kw)
                stack.callback(w.end)
                return w

            def nunchi(self, *args, **kw):
                return subprocess.run([BUILD / "bin" / "nunchi", *map(str, args)], env=dict(os.environ, NUNCHI_HOME=str(self.home)),
                                      capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60 * SLOW, **kw)
        p = Place()
        p.model.parent.mkdir()
        p.model.symlink_to(SMOLLM2)
        yield p


def flip(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1]))


def test_three_that_start_together_prepare_once_and_share(place):
    workers = [place.start() for _ in range(3)]
    numerics = {w.ready()["numerics"] for w in workers}
    assert len(numerics) == 1
    assert [w.said("ready")["weights"] for w in workers] == ["mapped"] * 3
    assert sum(w.prepared_it() for w in workers) == 1, [w.lines() for w in workers]
    assert sorted(p.name for p in place.model.parent.iterdir()) == ["m.gguf", "m.gguf.digest", "m.gguf.prepared"]
    size = place.prepared.stat().st_size // 1024
    # Pages that three processes map count for a third of one in each.
    until(lambda: all(r["Rss"] - r["Pss"] > size / 2 for r in (w.rollup() for w in workers)), 30, "the pages to be shared")
    assert [w.end() for w in workers] == [0, 0, 0]


def test_damage_under_a_running_worker(place):
    w = place.start("--check-ms", "10")
    w.ready()
    assert w.prepared_it()
    flip(place.prepared, place.prepared.stat().st_size // 2)
    assert w.process.wait(60 * SLOW) == 1
    assert w.said("the prepared weights are damaged; they were removed")
    assert not place.prepared.exists()
    again = place.start()
    again.ready()
    assert again.prepared_it() and place.prepared.exists()


def test_a_damaged_seal_is_seen_at_start(place):
    first = place.start()
    first.ready()
    first.end()
    flip(place.prepared, place.prepared.stat().st_size - 100)
    again = place.start()
    again.ready()
    assert again.prepared_it()


def test_no_room_is_said_and_survived(place):
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    w = place.start(limit=small)
    assert w.ready()["weights"] == "in memory"
    why = w.said("the weights are packed in memory")
    assert why["lvl"] == "warn" and "no room" in why["why"]
    assert not [p for p in place.model.parent.iterdir() if "prepared" in p.name]


def test_off_writes_nothing(place):
    w = place.start("--prepare", "off")
    assert w.ready()["weights"] == "in memory" and not w.said("the weights are packed")
    assert not place.prepared.exists()
    bad = place.start("--prepare", "perhaps")
    assert bad.process.wait(30 * SLOW) == 2


def test_the_command(place):
    done = place.nunchi("model", "prepare", place.model)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.splitlines()[0] == str(place.prepared)
    assert "96.4 MB" in done.stdout
    inode = place.prepared.stat().st_ino
    assert place.nunchi("model", "prepare", place.model).returncode == 0
    assert place.prepared.stat().st_ino == inode, "it was whole already"
    w = place.start()
    w.ready()
    assert not w.prepared_it()
    for what, words in (("none.gguf", "neither a file nor a name"), ("smollm2", "nunchi model fetch smollm2"), ("/dev/null", "regular file")):
        done = place.nunchi("model", "prepare", what)
        assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    done = place.nunchi("model", "prepare")
    assert done.returncode == 2


def test_the_command_without_room(place):
    done = place.nunchi("model", "prepare", place.model, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))
    assert done.returncode == 1 and "no room" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_list_shows_sizes(place):
    (place.home / "models").mkdir(parents=True)
    own = place.home / "models" / "own.gguf"
    own.symlink_to(SMOLLM2)
    def row():
        return next(line for line in place.nunchi("model", "list").stdout.splitlines() if "own.gguf" in line)
    assert "98.4" in row() and "96.4" not in row()
    assert place.nunchi("model", "prepare", own).returncode == 0
    assert "98.4" in row() and "96.4" in row()
