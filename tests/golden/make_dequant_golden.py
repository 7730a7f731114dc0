#!/usr/bin/env python3
"""Random blocks of every tensor type and what the `gguf` package makes of them: tests/golden/data/dequant.bin.

Records: le32 type, le32 elements, le32 bytes, the bytes, the elements as le float32.   Needs: pip install gguf numpy
"""
import pathlib
import struct

import gguf
import numpy as np

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
SCALES_AT = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

random = np.random.default_rng(1)
with open(pathlib.Path(__file__).parent / "data" / "dequant.bin", "wb") as out:
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        blocks = 512 // per_block
        if name in SCALES_AT:
            data = random.integers(0, 256, (blocks, block_bytes), dtype=np.uint8)
            for at in SCALES_AT[name]:
                data[:, at:at + 2] = random.normal(0, 0.05, blocks).astype(np.float16).view(np.uint8).reshape(blocks, 2)
        else:
            values = random.normal(0, 1, blocks).astype(np.float32)
            data = {"F32": values.view(np.uint8), "F16": values.astype(np.float16).view(np.uint8),
                    "BF16": (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)}[name]
        floats = gguf.dequantize(data.reshape(1, -1), kind).astype(np.float32).reshape(-1)
        raw = data.tobytes()
        out.write(struct.pack("<III", kind.value, floats.size, len(raw)) + raw + floats.tobytes())
