"""`nunchi bench`: what its numbers mean to each other, and how it refuses. How large they are, no test says."""
import json
import subprocess

import pytest

from conftest import BUILD, GEMMA3, SLOW, SMOLLM2

SMALL = ("--prompt", "20", "--gen", "3", "--repeat", "1", "--threads", "1")


def bench(*args, env=None):
    return subprocess.run([BUILD / "bin" / "nunchi", "bench", *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=240 * SLOW, env=env)


def measured(*args):
    done = bench("--json", *SMALL, *args)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def test_json_has_every_figure():
    got = measured("--model", SMOLLM2, "--batch", "2,1,5", "--context", 33)
    assert got["model"] == str(SMOLLM2) and got["family"] == "llama" and got["threads"] == 1
    assert list(got["types"]) == ["Q4_1", "Q8_0", "F32"], "most first"
    assert (got["prompt"], got["gen"], got["context"]) == (20, 3, 33)
    assert [d["sequences"] for d in got["decode"]] == [2, 1, 5]
    assert got["decode_tok_s"] == got["decode"][0]["tok_s"] > 0, "the first batch size given"
    assert got["prefill_tok_s"] == got["prefill"]["tok_s"] > 0
    assert isinstance(got["prepared"], bool) and got["load_s"] > 0 and got["limits"]["read_gb_s"] > 0 and got["limits"]["threads"] == 1
    assert 96e6 < got["peak_rss_bytes"] < 1e9, "at least the weights, and without what the limits read"


def test_gigabytes_and_operations_follow_from_tokens():
    got = measured("--model", SMOLLM2, "--batch", "1,4", "--context", 64)
    layers, kv_heads, head, heads = 30, 3, 64, 9
    macs = layers * (576 * 576 * 2 + 576 * 192 * 2 + 576 * 1536 * 3)
    vocabulary = 49152 * 576
    assert got["weight_bytes"] == 96436224
    for d in got["decode"]:
        kv = (64 + 3 // 2 + 1) * layers * kv_heads * head * 2 * 2
        assert d["gb_s"] == pytest.approx(d["tok_s"] * (got["weight_bytes"] / d["sequences"] + kv) / 1e9)
        assert d["gop_s"] == pytest.approx(2 * d["tok_s"] * (macs + vocabulary) / 1e9)
        assert d["share_of_bandwidth"] == pytest.approx(d["gb_s"] / got["limits"]["read_gb_s"])
        if got["limits"]["int8_gop_s"]:
            assert d["share_of_int8"] == pytest.approx(d["gop_s"] / got["limits"]["int8_gop_s"])
            weights = max(got["weight_bytes"] / got["limits"]["read_gb_s"], d["sequences"] * 2 * (macs + vocabulary) / got["limits"]["int8_gop_s"])
            attention = 2 * (64 + 2) * layers * heads * head * 2 / got["limits"]["float_gop_s"]
            least = weights + d["sequences"] * max(kv / got["limits"]["read_gb_s"], attention)
            assert d["limit_tok_s"] == pytest.approx(d["sequences"] * 1e9 / least)
            assert d["share_of_limit"] == pytest.approx(d["tok_s"] / d["limit_tok_s"])
    assert got["prefill"]["gop_s"] == pytest.approx(2 * got["prefill_tok_s"] * (macs + vocabulary / 20) / 1e9), "the vocabulary once a prompt"


def test_portable_code_has_no_peak():
    got = measured("--model", SMOLLM2, "--isa", "portable", "--batch", 1, "--prompt", 2, "--context", 1, "--gen", 1)
    assert got["isa"] == "portable" and got["limits"]["int8_gop_s"] is None
    assert got["decode"][0]["share_of_int8"] is None and got["decode"][0]["share_of_limit"] is None
    assert got["decode"][0]["share_of_bandwidth"] > 0


def test_the_table_names_the_model_and_its_rows():
    done = bench("--model", GEMMA3, *SMALL, "--batch", "1,2")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for words in ("gemma3", "peak RSS", "reads ", "prefill, 20 tokens", "decode, 1 sequence ", "decode, 2 sequences"):
        assert words in done.stdout, words


@pytest.mark.parametrize("args, words", [
    (("--batch", "0"), "numbers from 1 to 1024"), (("--batch", "1,,2"), "'1,,2'"), (("--batch", ""), "--batch"),
    (("--batch", ",".join(["1"] * 17)), "at most 16"), (("--threads", "257"), "1 to 256"), (("--prompt", "0"), "--prompt"),
    (("--gen", "99999999999999999999"), "--gen"), (("--context", "-1"), "--context"), (("--repeat", "1001"), "--repeat"),
    (("--chunk", "4097"), "4096"), (("model.gguf",), "--model"), (("--fast",), "--fast")])
def test_a_wrong_command_line(args, words):
    done = bench(*args)
    assert done.returncode == 2 and done.stdout == ""
    assert words in done.stderr and "nunchi bench --help" in done.stderr and len(done.stderr.splitlines()) == 3


def test_what_cannot_be_measured(tmp_path):
    (tmp_path / "text.gguf").write_text("not a model")
    home = {"NUNCHI_HOME": str(tmp_path)}
    for args, words in ((("--model", tmp_path / "none.gguf"), "neither a file nor a name"), (("--model", "smollm2"), "nunchi model fetch smollm2"),
                        (("--model", tmp_path / "text.gguf"), "not a GGUF file"), (("--model", tmp_path), "no regular file"),
                        (("--model", SMOLLM2, "--isa", "mmx"), "mmx"), (("--model", SMOLLM2, "--prompt", 8193), "8193 tokens"),
                        (("--model", SMOLLM2, "--context", 8192, "--gen", 1), "--context with --gen makes 8193"),
                        (("--model", SMOLLM2, "--context", 1048576, "--batch", 1024), "KV")):
        done = bench(*args, env=home)
        assert done.returncode == 1 and done.stdout == "" and words in done.stderr, (args, done.stderr)
        assert len(done.stderr.splitlines()) == 1
