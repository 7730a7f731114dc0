"""Models as they are published become models that nunchi serves: families against transformers' logits, files that are wrong in
every way, conversions that are cut short."""
import json
import os
import pathlib
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import zipfile

import numpy
import pytest

from conftest import BUILD, SLOW, Cluster, until

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "golden"))
import checkpoints  # noqa: E402


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NUNCHI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def add(*args, code=0):
    done = subprocess.run([BUILD / "bin" / "nunchi", "model", "add", *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=120 * SLOW)
    assert done.returncode == code, done.stderr
    return done


def refused(folder, *words):
    error = add(folder, code=1).stderr
    for word in words:
        assert word in error, error
    assert error.count("\n") == 1
    models = pathlib.Path(os.environ["NUNCHI_HOME"]) / "models"
    assert not list(models.glob("*.gguf*"))


def logits(model, backend, ids, step):
    done = subprocess.run([BUILD / "tests" / "bench" / "logits", model, backend, str(step), *map(str, ids)], capture_output=True,
                          timeout=120 * SLOW)
    assert done.returncode == 0, done.stderr
    return numpy.frombuffer(done.stdout, "<f4").reshape(len(ids), -1)


def off(got, golden):
    """Largest difference and rms of the differences, of the worst position, as shares of the rms of its logits."""
    want, rows = golden["logits"], got[golden["positions"]]
    rms = numpy.sqrt((want ** 2).mean(axis=1))
    return (abs(rows - want).max(axis=1) / rms).max(), (numpy.sqrt(((rows - want) ** 2).mean(axis=1)) / rms).max()


def kind_of(case):
    return "torch" if case.startswith("gptj") else "shards" if case in ("llama", "gptneox", "gemma3") else "safetensors"


def test_every_family_has_cases():
    types = {checkpoints.load(case)["config"]["model_type"] for case in checkpoints.CASES}
    assert types == {"gptj", "gpt_neox", "gpt2", "llama", "mistral", "qwen2", "qwen3", "phi3", "smollm3", "exaone4", "gemma2", "gemma3_text"}


# What is allowed is set by the arithmetic: float32 sums in another order; K and V in 16 bits; activations and weights in 8 bits.
@pytest.mark.parametrize("case", checkpoints.CASES)
def test_logits_equal_transformers(case, home, tmp_path):
    golden = checkpoints.write_folder(tmp_path / case, case, kind_of(case))
    ids = golden["ids"]
    add(tmp_path / case, "--quant", "none")
    model = home / "models" / f"{case}.gguf"
    whole = logits(model, "reference", ids, 4096)
    assert off(whole, golden)[0] < 1e-4
    assert (logits(model, "reference", ids, 7) == whole).all()
    kernels = logits(model, "cpu", ids, 512)
    assert off(kernels, golden)[0] < 0.02
    assert (logits(model, "cpu", ids, 7) == kernels).all() and (logits(model, "cpu", ids, 1) == kernels).all()
    add(tmp_path / case, "--quant", "q8_0", "--name", "q8")
    assert off(logits(home / "models" / "q8.gguf", "cpu", ids, 512), golden)[1] < 0.15


@pytest.mark.parametrize("quant", ["q4_k", "q5_k", "q6_k", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "f16", "bf16", "none"])
def test_every_type_loads(quant, home, tmp_path):
    golden = checkpoints.write_folder(tmp_path / "m", "gptj-kogpt", "torch")
    done = add(tmp_path / "m", "--quant", quant, "--name", quant)
    assert "family gptj, licence apache-2.0" in done.stdout
    assert "converting" in done.stderr and f"nunchi up --model {quant}" in done.stderr
    bound = 0.02 if quant in ("f16", "none") else 0.05 if quant == "bf16" else 0.1 if quant in ("q8_0", "q6_k") else 0.4
    assert off(logits(home / "models" / f"{quant}.gguf", "cpu", golden["ids"], 64), golden)[1] < bound


def test_kogpts_own_files_are_served(home, tmp_path):
    """The layout that KoGPT is published in, from conversion to an answer: one pickle with masks, an untied head with a bias."""
    folder = tmp_path / "KoGPT"
    checkpoints.write_folder(folder, "gptj-kogpt", "torch")
    (folder / "tokenizer.json").write_text(json.dumps(checkpoints.tokenizer(("[BOS]", "[EOS]", "[UNK]", "[PAD]", "[MASK]"))))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "[BOS]", "eos_token": "[EOS]", "unk_token": "[UNK]"}))
    add(folder, "--quant", "q8_0")
    with_model = Cluster(home, model="kogpt")
    try:
        with_model.up()
        import openai
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{with_model.port}/v1", api_key="none", max_retries=0)
        assert [m.id for m in client.models.list()] == ["kogpt"]
        ask = dict(model="kogpt", prompt="인간처럼 생각하고, 행동하는 '지능'을 통해", max_tokens=8, temperature=0)
        first = client.completions.create(**ask)
        assert first.usage.completion_tokens == 8 and first.choices[0].text
        assert client.completions.create(**ask).choices[0].text == first.choices[0].text
    finally:
        with_model.down()


# ---- what is added, and under which name ----

def test_a_gguf_is_taken_as_it_is(home, tmp_path):
    checkpoints.write_folder(tmp_path / "m", "llama")
    add(tmp_path / "m", "--name", "first")
    first = home / "models" / "first.gguf"
    add(first, "--name", "second")
    assert (home / "models" / "second.gguf").read_bytes() == first.read_bytes()
    assert "as it is" in add(first, "--name", "third", "--quant", "q8_0", code=1).stderr
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(first.read_bytes()[:-4096])
    assert "byte" in add(cut, code=1).stderr
    assert not (home / "models" / "cut.gguf").exists()


def split(path, folder, n):
    """What gguf-split does: keys in the first file, tensors dealt out, and each says which of how many it is."""
    import gguf
    reader = gguf.GGUFReader(path)
    tensors, keys = reader.tensors, reader.fields
    for i in range(n):
        writer = gguf.GGUFWriter(folder / f"m-{i + 1:05}-of-{n:05}.gguf", str(keys["general.architecture"].contents()) if i == 0 else "", False)
        for name, field in keys.items():
            if i > 0 or name.startswith("GGUF.") or name == "general.architecture":
                continue
            if field.types[0] == gguf.GGUFValueType.ARRAY:
                writer.add_array(name, field.contents())
            else:
                writer.add_key_value(name, field.contents(), field.types[0])
        writer.add_uint16("split.no", i)
        writer.add_uint16("split.count", n)
        writer.add_int32("split.tensors.count", len(tensors))
        for t in tensors[i::n]:
            writer.add_tensor(t.name, t.data, raw_dtype=t.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def test_a_gguf_in_several_files(home, tmp_path):
    golden = checkpoints.write_folder(tmp_path / "m", "qwen3")
    add(tmp_path / "m", "--name", "whole", "--quant", "q8_0")
    whole = home / "models" / "whole.gguf"
    split(whole, tmp_path, 3)
    first, last = tmp_path / "m-00001-of-00003.gguf", tmp_path / "m-00003-of-00003.gguf"
    add(last, "--name", "joined")
    joined = home / "models" / "joined.gguf"
    assert (logits(joined, "cpu", golden["ids"], 64) == logits(whole, "cpu", golden["ids"], 64)).all()
    last.unlink()
    assert "m-00003-of-00003.gguf" in add(first, "--name", "again", code=1).stderr
    shutil.copy(first, last)  # tensors twice
    assert "appears twice" in add(first, "--name", "again", code=1).stderr
    assert not list((home / "models").glob("again*"))


def test_export(home, tmp_path):
    checkpoints.write_folder(tmp_path / "m", "qwen3")
    add(tmp_path / "m")
    export = [BUILD / "bin" / "nunchi", "model", "export", "m", tmp_path / "out.gguf"]
    done = subprocess.run(export, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "out.gguf").read_bytes() == (home / "models" / "m.gguf").read_bytes()
    done = subprocess.run(export, capture_output=True, text=True)
    assert done.returncode == 1 and "is there already" in done.stderr
    import gguf  # what others read it with
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    assert reader.fields["general.architecture"].contents() == "qwen3" and len(reader.tensors) == 35


def test_wrong_options(home, tmp_path):
    checkpoints.write_folder(tmp_path / "m", "gpt2")
    assert "'q3' is none of q4_k, q5_k" in add(tmp_path / "m", "--quant", "q3", code=1).stderr
    assert "usage:" in add(code=2).stderr and "unrecognized" in add(tmp_path / "m", "--fast", code=2).stderr


def test_nothing_is_overwritten(home, tmp_path):
    checkpoints.write_folder(tmp_path / "m", "gpt2")
    add(tmp_path / "m")
    before = (home / "models" / "m.gguf").read_bytes()
    assert "is there already" in add(tmp_path / "m", "--quant", "q8_0", code=1).stderr
    assert (home / "models" / "m.gguf").read_bytes() == before
    assert "can be fetched" in add(tmp_path / "m", "--name", "smollm2", code=1).stderr
    for name in ("a/b", "../x", ".hidden", "-x", "x" * 81, ""):
        assert "a name has" in add(tmp_path / "m", f"--name={name}", code=1).stderr


def test_both_ways_of_a_checkpoint_make_one_file(home, tmp_path):
    for kind in ("safetensors", "shards", "torch"):
        checkpoints.write_folder(tmp_path / kind / "m", "gptneox", kind)
        add(tmp_path / kind / "m", "--name", kind[:2], "--quant", "q4_k")
    files = [(home / "models" / f"{kind}.gguf").read_bytes() for kind in ("sa", "sh", "to")]
    data = [f[f.index(b"output_norm.bias"):] for f in files]  # all but names and the source's stamp
    assert data[0] == data[1] == data[2] and len(data[0]) > 100_000


def test_a_conversion_goes_on_where_it_was_cut(home, tmp_path):
    """What a run that was killed left is kept if it belongs to this very conversion, and written anew if it does not."""
    folder = tmp_path / "m"
    checkpoints.write_folder(folder, "gemma3")
    add(folder, "--name", "whole")
    whole = (home / "models" / "whole.gguf").read_bytes()
    part = home / "models" / "cut.gguf.part"
    add(folder, "--name", "cut")
    target = home / "models" / "cut.gguf"
    own = target.read_bytes()
    target.unlink()
    part.write_bytes(own[:len(own) // 2])
    add(folder, "--name", "cut")
    assert target.read_bytes() == own and not part.exists()
    target.unlink()
    part.write_bytes(whole[:len(whole) // 2])  # of another name
    add(folder, "--name", "cut")
    assert target.read_bytes() == own and not part.exists()


def test_a_killed_conversion_leaves_no_model(home, tmp_path):
    folder = tmp_path / "m"
    checkpoints.write_folder(folder, "gpt2")
    os.makedirs(home / "models")
    os.mkfifo(folder / "chat_template.jinja")  # reading it is refused, not waited for
    refused(folder, "chat_template.jinja is not a file")
    (folder / "chat_template.jinja").unlink()
    child = subprocess.Popen([BUILD / "bin" / "nunchi", "model", "add", folder], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    child.send_signal(signal.SIGKILL)
    child.wait()
    add(folder)


# ---- wrong in every way ----

@pytest.fixture
def folder(tmp_path, home):
    checkpoints.write_folder(tmp_path / "m", "llama-bias")
    return tmp_path / "m"


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        config.pop(key, None) if value is None else config.update({key: value})
    path.write_text(json.dumps(config))


def header_of(path):
    raw = path.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:8 + n]), raw[8 + n:]


def put_header(path, header, data):
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("changes, words", [
    ({"model_type": None}, "model_type"), ({"model_type": "mamba"}, "supported: llama"), ({"hidden_size": 0}, "hidden_size"),
    ({"hidden_size": "x"}, "hidden_size"), ({"num_attention_heads": 5}, "attn"), ({"num_hidden_layers": 4}, "blk.3"),
    ({"num_hidden_layers": 2}, "layers.2"), ({"num_hidden_layers": 10**9}, "num_hidden_layers"), ({"head_dim": 12}, "attn"),
    ({"hidden_act": "relu"}, "hidden_act"), ({"rope_parameters": {"rope_type": "twisted"}}, "rope"),
    ({"rope_parameters": {"rope_theta": -1.0}}, "rope_theta"), ({"quantization_config": {"bits": 4}}, "quantised already"),
    ({"num_local_experts": 8}, "experts"), ({"max_position_embeddings": 0}, "max_position_embeddings"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 0.0}}, "factor"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "mscale": 1.0}}, "mscale"),
    ({"layer_types": ["sliding_attention"] * 3}, "layer_types"),
])
def test_wrong_configs(folder, changes, words):
    edit_config(folder, **changes)
    refused(folder, words)


def test_wrong_json(folder):
    for text in ("", "{", "[]", '{"model_type": "llama",}', "[" * 100_000, '{"a": NaN}', '{"a":1,"a":2}'):
        (folder / "config.json").write_text(text)
        refused(folder, "config.json")
    (folder / "config.json").write_text(" " * (1 << 20) + "{}")
    refused(folder, "config.json has more than 1048576 bytes")
    (folder / "config.json").unlink()
    refused(folder, "there is no config.json")


def test_wrong_safetensors(folder):
    path = folder / "model.safetensors"
    good = path.read_bytes()
    header, data = header_of(path)
    name = "model.layers.0.self_attn.q_proj.weight"

    def one(change):
        h = json.loads(json.dumps(header))
        change(h)
        put_header(path, h, data)
        refused(folder, "model.safetensors")

    for raw in (b"", b"x" * 7, good[:8], good[:-1], good + b"\0", struct.pack("<Q", 1 << 62) + good[8:], struct.pack("<Q", 1) + b"{}"):
        path.write_bytes(raw)
        refused(folder, "model.safetensors")
    one(lambda h: h[name].update(shape=[96, 97]))
    one(lambda h: h[name].update(shape=[2**40, 2**40]))
    one(lambda h: h[name].update(shape=[-1, 96]))
    one(lambda h: h[name].update(shape=[[1]]))
    one(lambda h: h[name].update(dtype="Q9"))
    one(lambda h: h[name].update(data_offsets=[0, 4]))
    one(lambda h: h[name].update(data_offsets=[2**63, 2**63]))
    one(lambda h: h[name].update(data_offsets=[8, 4]))
    one(lambda h: h.update({name: 7}))
    one(lambda h: h.pop(name))
    put_header(path, json.dumps(header).replace('"model.norm.weight"', '"model.layers.0.self_attn.q_proj.weight"'), data)
    refused(folder, "model.safetensors")
    put_header(path, "[" * 1000, data)
    refused(folder, "model.safetensors")


def test_tensors_that_do_not_fit(folder, tmp_path):
    golden = checkpoints.load("llama-bias")
    tensors = checkpoints.weights(golden)
    path = folder / "model.safetensors"

    def put(change):
        own = dict(tensors)
        change(own)
        checkpoints.write_safetensors(path, own, "F32")

    put(lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    refused(folder, "blk.1.ffn_up.weight")
    put(lambda t: t.update({"model.layers.1.mlp.up_proj.weight": t["model.layers.1.mlp.up_proj.weight"][:-1]}))
    refused(folder, "blk.1.ffn_up.weight")
    put(lambda t: t.update({"model.layers.1.mlp.router.weight": numpy.zeros((2, 96), "f4")}))
    refused(folder, "model.layers.1.mlp.router.weight", "no place")
    put(lambda t: t.update({"model.norm.weight": numpy.zeros((2, 48, 1), "f4")}))
    refused(folder, "model.norm.weight")
    put(lambda t: t.pop("model.embed_tokens.weight"))
    refused(folder, "no embedding")
    for bad in (numpy.nan, numpy.inf):
        put(lambda t: t["model.layers.2.mlp.down_proj.weight"].__setitem__((3, 5), bad))
        error = add(folder, code=1).stderr
        assert "blk.2.ffn_down.weight" in error and "finite" in error
        tensors = checkpoints.weights(golden)


def test_wrong_indexes(tmp_path, home):
    folder = tmp_path / "m"
    checkpoints.write_folder(folder, "llama-bias", "shards")
    index = folder / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    for shard in ("../model.safetensors", "/etc/passwd", "", "none.safetensors", "a\0b", "x" * 300, 7):
        index.write_text(json.dumps({"weight_map": {**good["weight_map"], "model.norm.weight": shard}}))
        refused(folder)
    index.write_text("{}")
    refused(folder, "weight_map")
    index.write_text(json.dumps(good))
    shutil.copy(folder / "model-00001-of-00003.safetensors", folder / "model-00002-of-00003.safetensors")
    refused(folder, "is there twice")


class Evil:
    def __init__(self, what, *args):
        self.what, self.args = what, args

    def __reduce__(self):
        return self.what, self.args


def test_pickles_that_run_code(tmp_path, home):
    folder, marker = tmp_path / "m", tmp_path / "ran"
    checkpoints.write_folder(folder, "gptj", "torch")
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path) as z:
        good = {name: z.read(name) for name in z.namelist()}

    def put(pickled, **changes):
        with zipfile.ZipFile(path, "w", changes.pop("compression", zipfile.ZIP_STORED)) as z:
            for name, data in {**good, "archive/data.pkl": pickled, **changes}.items():
                z.writestr(name, data)

    for evil in (Evil(os.system, f"touch {marker}"), Evil(eval, "1"), Evil(getattr, "x", "upper"), {"a": Evil(exec, "")}):
        for protocol in (2, 4):
            put(pickle.dumps(evil, protocol=protocol))
            refused(folder, "pickle")
    assert not marker.exists()
    for text in (b"", b".", b"\x80\x02.", b"}.", b"(" * 300_000 + b".", b"\x80\x02}q\x00h\x01.", b"}(K\x01u.", b"t.", b"R.", b"Q.",
                 b"\x8a\xff" + b"\0" * 255 + b".", b"X\xff\xff\xff\xff.", b"ctorch\nFloatStorage\n)R.", b"ccollections\nOrderedDict\n.",
                 b"}K\x01K\x02b.", b"]]" * 100 + b"."):
        put(text)
        refused(folder)
    put(good["archive/data.pkl"], compression=zipfile.ZIP_DEFLATED)
    refused(folder, "compressed")
    put(good["archive/data.pkl"], **{"archive/data/3": b"\0" * 7})
    refused(folder, "does not lie in its storage")
    for raw in (b"", b"PK", b"PK\x03\x04" + b"\0" * 100, path.read_bytes()[:-30], b"\x80\x02}q\x00."):
        path.write_bytes(raw)
        refused(folder, "pytorch_model.bin")


@pytest.mark.parametrize("change, words", [
    (lambda t: t["model"].update(type="Unigram"), "Unigram"), (lambda t: t["model"].update(dropout=0.1), "dropout"),
    (lambda t: t["model"].update(end_of_word_suffix="</w>"), "model"), (lambda t: t.update(normalizer={"type": "Lowercase"}), "Lowercase"),
    (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "Whitespace"),
    (lambda t: t.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "x" * 5000},
                                                                           "behavior": "Isolated", "invert": False}]}), "pre-tokenizer"),
    (lambda t: t["model"]["merges"].append("zzz yyy"), "merge"), (lambda t: t["model"]["merges"].append("one"), "merge"),
    (lambda t: t["model"]["vocab"].update(x=-1), "vocab"), (lambda t: t["model"]["vocab"].update(x=2**31), "vocab"),
    (lambda t: t["model"]["vocab"].update(xx=0), "twice"), (lambda t: t["model"]["vocab"].update(xx=1000), "rows"),
    (lambda t: t["added_tokens"].append({"id": "x", "content": "y"}), "id"), (lambda t: t.pop("model"), "model"),
])
def test_wrong_tokenizers(folder, change, words):
    tokenizer = checkpoints.tokenizer()
    change(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    refused(folder, words)


def test_no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    refused(folder, "neither a tokenizer.json nor a tokenizer.model")
    for raw in (b"", b"\x0a", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x03\x0a\x05x", b"\x08" * 100, os.urandom(64)):
        (folder / "tokenizer.model").write_bytes(raw)
        refused(folder, "tokenizer.model")


def test_paths_that_are_nothing(tmp_path, home):
    refused(tmp_path / "none", "No such file")
    refused("/dev/null", "neither a folder nor a file of weights")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "config.json")
    (tmp_path / "empty" / "config.json").write_text("{}")
    refused(tmp_path / "empty", "neither model.safetensors nor pytorch_model.bin")
