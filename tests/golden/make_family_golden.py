#!/usr/bin/env python3
"""What transformers computes in float32 for a small random model of each family (checkpoints.py has the weights): logits at some
positions of one prompt. The tests read only what this writes.

usage: make_family_golden.py [CASE …]      Needs: pip install torch transformers numpy

tests/golden/data/families/CASE.json: config (as transformers saves it), dtype of the checkpoint, tensors [[name, shape] …],
ids, positions, and logits (positions, vocabulary) as base64 of little-endian float32.
"""
import base64
import json
import pathlib
import sys
import tempfile

import torch
import transformers as t

import checkpoints

VOCAB = 307  # not a multiple of anything


def llama(**k):
    return dict(vocab_size=VOCAB, hidden_size=96, intermediate_size=160, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
                head_dim=16, max_position_embeddings=512, **k)


def rope(kind, **k):
    return dict(rope_type=kind, rope_theta=10000.0, **k)


WINDOWS = ["sliding_attention"] * 3 + ["full_attention"]
# name: (configuration, its numbers, dtype of the checkpoint, length of the prompt)
CASES = {
    "gptj": (t.GPTJConfig, dict(vocab_size=VOCAB, n_embd=96, n_layer=3, n_head=3, rotary_dim=16, n_positions=128,
                                tie_word_embeddings=False), "F32", 40),
    "gptj-kogpt": (t.GPTJConfig, dict(vocab_size=512, n_embd=128, n_layer=2, n_head=2, rotary_dim=16, n_positions=128, n_inner=None,
                                      tie_word_embeddings=False), "F16", 24),
    "gptneox": (t.GPTNeoXConfig, dict(vocab_size=VOCAB, hidden_size=96, num_hidden_layers=3, num_attention_heads=3, intermediate_size=200,
                                      rotary_pct=0.5, max_position_embeddings=128, tie_word_embeddings=False), "F16", 40),
    "gptneox-sequential": (t.GPTNeoXConfig, dict(vocab_size=VOCAB, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                                                 intermediate_size=128, use_parallel_residual=False, max_position_embeddings=128,
                                                 tie_word_embeddings=False), "F32", 24),
    "gpt2": (t.GPT2Config, dict(vocab_size=VOCAB, n_embd=96, n_layer=3, n_head=3, n_positions=64), "F32", 40),
    "llama": (t.LlamaConfig, llama(tie_word_embeddings=False, rms_norm_eps=1e-5, rope_theta=50000.0), "BF16", 40),
    "llama-llama3-rope": (t.LlamaConfig, llama(tie_word_embeddings=True, rope_parameters=rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)), "F32", 300),
    "llama-linear-rope": (t.LlamaConfig, llama(tie_word_embeddings=True, rope_parameters=rope("linear", factor=4.0)), "F32", 60),
    "llama-bias": (t.LlamaConfig, llama(tie_word_embeddings=True, attention_bias=True), "F32", 24),
    "llama-wide-heads": (t.LlamaConfig, {**llama(tie_word_embeddings=False), "head_dim": 32, "num_key_value_heads": 3}, "F32", 24),
    "mistral": (t.MistralConfig, llama(sliding_window=16), "BF16", 48),
    "qwen2": (t.Qwen2Config, {k: v for k, v in llama(tie_word_embeddings=True).items() if k != "head_dim"}, "BF16", 40),
    "qwen2-yarn": (t.Qwen2Config, {k: v for k, v in llama(tie_word_embeddings=True, rope_parameters=rope(
        "yarn", factor=4.0, original_max_position_embeddings=64)).items() if k != "head_dim"}, "F32", 300),
    "qwen3": (t.Qwen3Config, {**llama(tie_word_embeddings=True), "head_dim": 32}, "BF16", 40),
    "phi3": (t.Phi3Config, {**{k: v for k, v in llama(tie_word_embeddings=False, sliding_window=20, pad_token_id=0, bos_token_id=1,
                                                      eos_token_id=2).items() if k != "head_dim"}}, "BF16", 48),
    "phi3-longrope": (t.Phi3Config, {**{k: v for k, v in llama(
        tie_word_embeddings=False, pad_token_id=0, bos_token_id=1, eos_token_id=2, original_max_position_embeddings=64,
        rope_parameters=rope("longrope", short_factor=[1 + 0.1 * i for i in range(8)], long_factor=[1 + i for i in range(8)],
                             original_max_position_embeddings=64)).items() if k != "head_dim"}}, "F32", 60),
    "smollm3": (t.SmolLM3Config, {**llama(tie_word_embeddings=True, pad_token_id=0), "num_hidden_layers": 5}, "BF16", 40),
    "exaone4": (t.Exaone4Config, {**llama(tie_word_embeddings=False, sliding_window=None), "num_hidden_layers": 4,
                                  "layer_types": ["full_attention"] * 4}, "BF16", 40),
    "exaone4-windows": (t.Exaone4Config, {**llama(tie_word_embeddings=False, sliding_window=16, sliding_window_pattern=4),
                                          "num_hidden_layers": 5, "layer_types": WINDOWS + ["sliding_attention"]}, "F32", 48),
    "gemma2": (t.Gemma2Config, {**llama(sliding_window=16, query_pre_attn_scalar=20), "num_hidden_layers": 4, "head_dim": 32}, "F32", 48),
    "gemma3": (t.Gemma3TextConfig, {**llama(sliding_window=16, query_pre_attn_scalar=32), "num_hidden_layers": 7, "head_dim": 32}, "F32", 48),
}


def names_and_shapes(model):
    """As a checkpoint has them: without what is tied, without masks."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((pathlib.Path(folder) / "config.json").read_text())
        raw = (pathlib.Path(folder) / "model.safetensors").read_bytes()
        header = json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])
    return config, [[name, v["shape"]] for name, v in header.items() if name != "__metadata__"]


def reference(golden):
    """transformers' own reading of the checkpoint, in float32."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "config.json").write_text(json.dumps(golden["config"]))
        checkpoints.write_safetensors(folder / "model.safetensors", checkpoints.weights(golden), golden["dtype"])
        model, report = t.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                               output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"], report
    return model.eval()


def make(case):
    kind, numbers, dtype, length = CASES[case]
    saved, tensors = names_and_shapes(t.AutoModelForCausalLM.from_config(kind(**numbers)))
    golden = {"config": saved, "dtype": dtype, "tensors": tensors}
    model = reference(golden)
    vocab = numbers["vocab_size"]
    ids = [int((u + 1) / 2 * vocab) % vocab for u in checkpoints.uniform(case, length)]
    with torch.no_grad():
        rows = model(torch.tensor([ids])).logits[0].float()
    positions = sorted({0, 1, length // 3, length // 2, length - 2, length - 1})
    golden.update(ids=ids, positions=positions, logits=base64.b64encode(rows[positions].numpy().astype("<f4").tobytes()).decode(),
                  made_with=f"transformers {t.__version__}, torch {torch.__version__.split('+')[0]}")
    (checkpoints.DATA / f"{case}.json").write_text(json.dumps(golden) + "\n")
    print(case, len(tensors), "tensors; rms", float(rows.square().mean().sqrt()), "best two apart",
          float((rows.topk(2).values[:, 0] - rows.topk(2).values[:, 1]).median()), flush=True)


for name in sys.argv[1:] or CASES:
    make(name)
