"""A minute of faults by a plan: nothing is lost and nothing is wrong."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent


@pytest.mark.skipif("NUNCHI_SANITIZER" in os.environ, reason="made for the pace of an ordinary build")
def test_a_minute_of_faults(tmp_path):
    out = tmp_path / "result.json"
    done = subprocess.run([sys.executable, HERE / "run", "--build", os.environ.get("NUNCHI_BUILD", "build"), "--seconds", "60", "--seed", "1",
                           "--json", out], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads(out.read_text())
    assert result["answered"] >= 20 and sum(result["faults"].values()) >= 10
