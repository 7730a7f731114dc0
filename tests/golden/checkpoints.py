"""Small checkpoints of every family, in the files that people publish: config.json, tokenizer.json, and weights in safetensors or
in a PyTorch file. The weights come from a formula, so that only what a reference computed from them is kept
(tests/golden/data/families, by make_family_golden.py). Needs numpy alone."""
import base64
import io
import json
import pathlib
import pickle
import struct
import sys
import types
import zipfile
import zlib

import numpy

DATA = pathlib.Path(__file__).resolve().parent / "data" / "families"
CASES = sorted(p.stem for p in DATA.glob("*.json"))


def load(case):
    """config, tensors ([name, shape] …), dtype, ids, positions, logits (positions, vocabulary)."""
    golden = json.loads((DATA / f"{case}.json").read_text())
    rows = numpy.frombuffer(base64.b64decode(golden["logits"]), "<f4")
    golden["logits"] = rows.reshape(len(golden["positions"]), -1)
    return golden


# ---- weights ----

def uniform(name, n):
    """n numbers in [-1, 1): splitmix64 of the name's checksum and the index."""
    x = numpy.arange(1, n + 1, dtype=numpy.uint64) + numpy.uint64(zlib.crc32(name.encode()) << 32)
    with numpy.errstate(over="ignore"):
        x = x * numpy.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        x = x ^ (x >> numpy.uint64(31))
    return (x >> numpy.uint64(40)).astype(numpy.float64) / 2**23 - 1


def weight(name, shape, dtype, norms_less_one):
    u = uniform(name, int(numpy.prod(shape))).reshape(shape)
    if len(shape) == 1:
        norm = name.endswith("weight")
        x = 0.3 * u + (1 if norm and not norms_less_one else 0)
    elif "embed" in name or "wte" in name or "wpe" in name:
        x = 0.7 * u
    else:
        x = u * (2.5 / numpy.sqrt(max(shape)))
    return narrow(x.astype(numpy.float32), dtype)


def narrow(x, dtype):
    """Rounded to what the dtype can say; still float32."""
    if dtype == "F16":
        return x.astype(numpy.float16).astype(numpy.float32)
    if dtype == "BF16":
        bits = x.view(numpy.uint32).astype(numpy.uint64)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(numpy.uint32).view(numpy.float32)
    return x


def weights(golden):
    less_one = golden["config"]["model_type"].startswith("gemma")
    return {name: weight(name, shape, golden["dtype"], less_one) for name, shape in golden["tensors"]}


def stored(x, dtype):
    if dtype == "F16":
        return x.astype("<f2").tobytes()
    if dtype == "BF16":
        return (x.view(numpy.uint32) >> 16).astype("<u2").tobytes()
    return x.astype("<f4").tobytes()


# ---- files ----

def write_safetensors(path, tensors, dtype):
    header, at, data = {"__metadata__": {"format": "pt"}}, 0, []
    for name, x in tensors.items():
        raw = stored(x, dtype)
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        data.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))


def write_shards(folder, tensors, dtype, n):
    names = list(tensors)
    index = {"metadata": {}, "weight_map": {}}
    for i in range(n):
        file = f"model-{i + 1:05}-of-{n:05}.safetensors"
        part = {name: tensors[name] for name in names[i::n]}
        write_safetensors(folder / file, part, dtype)
        index["weight_map"].update({name: file for name in part})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


class Storage:
    def __init__(self, key, kind, raw, n):
        self.key, self.kind, self.raw, self.n = key, kind, raw, n


def torch_modules():
    """As much of torch as names in a pickle need: a stand-in where torch is not installed."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*args):
        raise NotImplementedError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    for kind in ("FloatStorage", "HalfStorage", "BFloat16Storage", "BoolStorage"):
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))
    return {"torch": torch, "torch._utils": utils}


class Tensor:
    def __init__(self, storage, shape, rebuild):
        self.storage, self.shape, self.rebuild = storage, shape, rebuild

    def __reduce__(self):
        strides, n = [], 1
        for d in reversed(self.shape):
            strides.insert(0, n)
            n *= d
        import collections
        return self.rebuild, (self.storage, 0, tuple(self.shape), tuple(strides), False, collections.OrderedDict())


def write_torch(path, tensors, dtype, masks=()):
    """What torch.save writes for a state dict; masks: names of bool tensors (2, 3) among them, as KoGPT's file has."""
    import collections
    kept = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    modules = torch_modules()
    sys.modules.update(modules)
    kinds = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}
    storages, state = [], collections.OrderedDict()

    def add(name, kind, raw, shape):
        storages.append(Storage(str(len(storages)), getattr(modules["torch"], kind), raw, max(1, int(numpy.prod(shape)))))
        state[name] = Tensor(storages[-1], shape, modules["torch._utils"]._rebuild_tensor_v2)

    for name, x in tensors.items():
        add(name, kinds[dtype], stored(x, dtype), x.shape)
    for name in masks:
        add(name, "BoolStorage", bytes(6), (2, 3))

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", value.kind, value.key, "cpu", value.n) if isinstance(value, Storage) else None

    try:
        out = io.BytesIO()
        Pickler(out, protocol=2).dump(state)
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as z:
        z.writestr("archive/data.pkl", out.getvalue())
        z.writestr("archive/byteorder", "little")
        for s in storages:
            z.writestr(f"archive/data/{s.key}", s.raw)
        z.writestr("archive/version", "3\n")


# ---- a tokenizer: bytes and a few merges, as byte-level BPE ----

def byte_alphabet():
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in own]
    return {**{b: chr(b) for b in own}, **{b: chr(0x100 + i) for i, b in enumerate(others)}}


def tokenizer(specials=("<s>", "</s>")):
    vocab = {c: i for i, c in enumerate(byte_alphabet()[b] for b in range(256))}
    merges = ["t h", "th e", "i n", "\u0120 the", "a n", "an d"]
    for m in merges:
        vocab.setdefault("".join(m.split()), len(vocab))
    added = [{"id": len(vocab) + i, "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, s in enumerate(specials)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": merges}}


def write_folder(folder, case, kind="safetensors", shards=3):
    """A checkpoint as its makers would publish it. kind: safetensors, shards, torch."""
    golden = load(case)
    tensors = weights(golden)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(golden["config"]))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>"}}))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: ko\n---\n# A model\n")
    if kind == "torch":
        layers = range(golden["config"].get("n_layer", 0))
        masks = [f"transformer.h.{i}.attn.bias" for i in layers] if golden["config"]["model_type"] == "gptj" else ()
        write_torch(folder / "pytorch_model.bin", tensors, golden["dtype"], masks)
    elif kind == "shards":
        write_shards(folder, tensors, golden["dtype"], shards)
    else:
        write_safetensors(folder / "model.safetensors", tensors, golden["dtype"])
    return golden
