#!/usr/bin/env python3
"""What transformers computes in float32 on the dequantised weights of the two test models: logits at some positions of several
prompts, and greedy continuations with the distance between the two best logits. The tests read only what this writes.

usage: make_engine_golden.py MODELS-FOLDER      Needs: pip install torch transformers gguf accelerate sentencepiece

tests/golden/data/engine_<name>.bin, little-endian:
  u32 stride, u32 prompts; then per prompt
    u32 ids, u32 continuation, u32 positions; i32 ids[]; continuation x {i32 id, f32 gap}
    positions x {u32 position, f32 rms of the whole row, u32 n, f32 logits of ids 0, stride, 2*stride …}
"""
import pathlib
import struct
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MODELS = {"smollm2": ("SmolLM2-135M-Instruct.Q4_1.gguf", 16), "gemma3": ("gemma-3-270m-q4_k_m.gguf", 64)}
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea, there lived an old fisherman who had never learned to swim. One morning",
    "대한민국의 수도는",
    "눈치는 상황을 지켜보며 읽어 내는 기술이다. 예를 들어, 회의가 길어질 때",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Q: What is 17 + 25?\nA:",
]
# Long enough to cross attention segments (256) and Gemma's window (512).
LONG = " ".join(f"On day {i} the ferry carried {i * 7 % 31} passengers to the island." for i in range(1, 46))
CONTINUE = 16


def positions(n):
    return sorted({0, n // 3, 2 * n // 3, n - 1})


def write_prompt(out, model, ids, stride):
    tokens = torch.tensor([ids])
    with torch.no_grad():
        rows = model(tokens).logits[0].float()
        generated, past, last = [], None, tokens
        for _ in range(CONTINUE):
            step = model(last, past_key_values=past, use_cache=True)
            past = step.past_key_values
            best = torch.topk(step.logits[0, -1].float(), 2)
            generated.append((int(best.indices[0]), float(best.values[0] - best.values[1])))
            last = best.indices[:1].reshape(1, 1)
    where = positions(len(ids))
    out.write(struct.pack("<III", len(ids), len(generated), len(where)) + struct.pack(f"<{len(ids)}i", *ids))
    for token, gap in generated:
        out.write(struct.pack("<if", token, gap))
    for p in where:
        row = rows[p]
        some = row[::stride]
        out.write(struct.pack("<IfI", p, float(row.square().mean().sqrt()), len(some)) + some.numpy().astype("<f4").tobytes())


for name, (file, stride) in MODELS.items():
    folder = sys.argv[1]
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    with open(pathlib.Path(__file__).parent / "data" / f"engine_{name}.bin", "wb") as out:
        out.write(struct.pack("<II", stride, len(PROMPTS) + 1))
        for text in PROMPTS + [LONG]:
            ids = tokenizer(text)["input_ids"]
            if tokenizer.bos_token_id is not None and name == "gemma3" and ids[0] != tokenizer.bos_token_id:
                ids = [tokenizer.bos_token_id] + ids
            write_prompt(out, model, ids, stride)
            print(name, len(ids), repr(text[:30]), flush=True)
