"""tokenizer.json files as their makers write them: after conversion, the ids are those of the library `tokenizers`."""
import json
import pathlib
import subprocess
import sys

import pytest
import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from conftest import BUILD, SLOW

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "golden"))
import checkpoints  # noqa: E402

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
OWN = r"\p{N}{1,2}|\p{Han}+| ?[\p{L}\p{M}']+|[^\s\p{L}\p{N}]+|\s+"
LINES = """The train leaves at 7:45, doesn't it? We'll be there by 9; they've booked seats 12A-12C for $1,234.50.
오늘 아침에는 비가 조금 내렸지만, 오후에는 하늘이 맑게 개었습니다. 서울에서 부산까지 기차로 2시간 30분이 걸립니다.
今日は朝から雨が降っていました。今天早上下了一点雨 Сегодня утром Größe weiß café naïve
def f(x): return {'a': x**2, "b": 0x1F}  # comment\t\ttabs   and   spaces"""
TEXTS = [*LINES.split("\n"), LINES, "", " ", "  a", "a  ", "\n\n x\n", "e\u0301 \u1112\u1161\u11ab", "1234567 12 3", "😀👍🏽", "\u2581x \u2581", "<s>hi</s>",
         "it's IT'S 'Tis", "ﬁ Ａ１２３ ² ½ ㎏ ｶﾞ ﷺ \ufb1d", "\u00a0x\u3000y\u0085z", "a" * 300, "x\x00y"]


def trained(pre, normalizer=None, byte_fallback=False, **kw):
    """A small vocabulary of its own, learned from the lines."""
    t = Tokenizer(models.BPE(unk_token="<unk>" if byte_fallback else None, byte_fallback=byte_fallback, fuse_unk=byte_fallback, **kw))
    if normalizer:
        t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    alphabet = [] if byte_fallback else pre_tokenizers.ByteLevel.alphabet()
    first = ["<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)]] if byte_fallback else ["<s>", "</s>"]
    t.train_from_iterator([LINES.split("\n")[0], *LINES.split("\n")] * 3,
                          trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, special_tokens=first, show_progress=False))
    if not byte_fallback:
        t.decoder = decoders.ByteLevel()
        return t
    data = json.loads(t.to_str())  # bytes are pieces of the vocabulary, not added tokens
    data["added_tokens"] = [a for a in data["added_tokens"] if not a["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(data))


def byte_level(**kw):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, **kw)


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"), byte_level(use_regex=False)])


PREPEND = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
KINDS = {
    "gpt2": lambda: trained(byte_level()),
    "gpt2-nfc": lambda: trained(byte_level(), normalizers.NFC()),
    "gpt2-nfd": lambda: trained(byte_level(), normalizers.NFD()),
    "gpt2-nfkc": lambda: trained(byte_level(), normalizers.Sequence([normalizers.NFKC()])),
    "gpt2-nfkd": lambda: trained(byte_level(), normalizers.NFKD()),
    "gpt2-prefix": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "gpt2-prefix-nfkc": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=True), normalizers.NFKC()),
    "digits": lambda: trained(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()])),
    "llama3": lambda: trained(split(LLAMA3), ignore_merges=True),
    "qwen2": lambda: trained(split(QWEN2), normalizers.NFC()),
    "own-pattern": lambda: trained(split(OWN)),
    "own-pattern-nfc": lambda: trained(split(OWN), normalizers.Sequence([normalizers.NFC()])),
    "llama2": lambda: trained(None, PREPEND, byte_fallback=True),
    "gemma": lambda: trained(pre_tokenizers.Split(" ", "merged_with_previous"), normalizers.Replace(" ", "▁"), byte_fallback=True),
    "metaspace-first": lambda: trained(pre_tokenizers.Metaspace(prepend_scheme="first", split=False), byte_fallback=True),
    "metaspace-never": lambda: trained(pre_tokenizers.Metaspace(prepend_scheme="never", split=False), byte_fallback=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_tokenizers(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("NUNCHI_HOME", str(tmp_path / "home"))
    reference = KINDS[kind]()
    reference.add_tokens([AddedToken("<whole>", normalized=False)])
    golden = checkpoints.write_folder(tmp_path / "m", "gptj-kogpt")
    golden["config"]["vocab_size"] = 700
    shapes = [[name, [700, *shape[1:]] if name.startswith(("transformer.wte", "lm_head")) else shape] for name, shape in golden["tensors"]]
    golden["tensors"] = shapes
    (tmp_path / "m" / "config.json").write_text(json.dumps(golden["config"]))
    checkpoints.write_safetensors(tmp_path / "m" / "model.safetensors", checkpoints.weights(golden), "F32")
    reference.save(str(tmp_path / "m" / "tokenizer.json"))
    done = subprocess.run([BUILD / "bin" / "nunchi", "model", "add", tmp_path / "m"], capture_output=True, text=True, timeout=60 * SLOW)
    assert done.returncode == 0, done.stderr
    texts = [t for t in TEXTS + ["a<whole>b", "<whole>"] if t]
    plain = Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    plain.encode_special_tokens = True  # what a user types as <s> is text
    done = subprocess.run([BUILD / "tests" / "bench" / "encode", tmp_path / "home" / "models" / "m.gguf"],
                          input="\n__ggml_vocab_test__\n".join(texts).encode(), capture_output=True, timeout=60 * SLOW)
    assert done.returncode == 0, done.stderr
    got = [[int(i) for i in line.split()] for line in done.stdout.decode().splitlines()]
    wrong = [(t, plain.encode(t, add_special_tokens=False).ids, g) for t, g in zip(texts, got)
             if plain.encode(t, add_special_tokens=False).ids != g]
    assert len(got) == len(texts) and not wrong, (len(wrong), wrong[0])


def test_bos_is_put_before_where_the_post_processor_does(tmp_path, monkeypatch):
    monkeypatch.setenv("NUNCHI_HOME", str(tmp_path / "home"))
    for name, post in (("with", processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])), ("without", None)):
        t = KINDS["llama2"]()
        if post:
            t.post_processor = post
        checkpoints.write_folder(tmp_path / name, "gptj-kogpt")
        data = json.loads(t.to_str())
        data["model"]["vocab"] = {k: v for k, v in data["model"]["vocab"].items() if v < 500}
        data["model"]["merges"] = [m for m in data["model"]["merges"] if "".join(m) in data["model"]["vocab"]]
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(data))
        assert subprocess.run([BUILD / "bin" / "nunchi", "model", "add", tmp_path / name], capture_output=True).returncode == 0
        raw = (tmp_path / "home" / "models" / f"{name}.gguf").read_bytes()
        at = raw.index(b"tokenizer.ggml.add_bos_token") + len(b"tokenizer.ggml.add_bos_token") + 4
        assert raw[at] == (name == "with")
