#!/usr/bin/env python3
"""Writes the golden bytes of the wire: every message, each field filled with a value made from its name, packed by Google's
protobuf runtime and not by ours; and a whole message with header and sum, by hand.

usage: make_golden.py FOLDER     (needs protoc and the Python packages protobuf and xxhash)

tests/contract/data/v1 was made by this for version 1 and is never made again: later builds must read the same bytes to the same
values. A protobuf message or field that is new since then is simply not in there; run this into another folder and copy what is
new (the lines of fields.txt too), never what exists. data/v2 has what version 2 changed, which is the header alone.
"""
import pathlib
import struct
import subprocess
import sys
import tempfile

import xxhash
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor as F

ROOT = pathlib.Path(__file__).resolve().parents[2]


def name_hash(text):
    """FNV-1a, 32 bits: what the C test computes too."""
    h = 2166136261
    for c in text.encode():
        h = ((h ^ c) * 16777619) & 0xFFFFFFFF
    return h


def scalar(f, salt):
    h = name_hash(f"{f.containing_type.full_name}.{f.name}{salt}")
    t = f.type
    if t in (F.TYPE_UINT32, F.TYPE_FIXED32):
        return h
    if t in (F.TYPE_INT32, F.TYPE_SINT32, F.TYPE_SFIXED32):
        return h - (1 << 32) if h >= 1 << 31 else h
    if t in (F.TYPE_UINT64, F.TYPE_FIXED64):
        return h << 32 | (h ^ 0xFFFFFFFF)
    if t in (F.TYPE_FLOAT, F.TYPE_DOUBLE):
        return (h % 8192) / 8 + 0.125
    if t == F.TYPE_BOOL:
        return True
    if t == F.TYPE_ENUM:
        return max(v.number for v in f.enum_type.values)
    if t == F.TYPE_STRING:
        return f"눈치 {h:08x}"
    if t == F.TYPE_BYTES:
        return struct.pack("<I", h) + b"\x00\xff bytes"
    raise SystemExit(f"no rule for the type of {f.full_name}")


def is_repeated(f):
    return f.is_repeated if hasattr(f, "is_repeated") else f.label == F.LABEL_REPEATED


def fill(m, chosen=None):
    """chosen: of each oneof, the member to set; default the first."""
    for f in m.DESCRIPTOR.fields:
        oneof = f.containing_oneof
        if oneof and f is not (chosen or oneof.fields[0]):
            continue
        if f.type == F.TYPE_MESSAGE:
            if is_repeated(f):
                for _ in range(2):
                    fill(getattr(m, f.name).add())
            else:
                fill(getattr(m, f.name))
                getattr(m, f.name).SetInParent()
        elif is_repeated(f):
            getattr(m, f.name).extend([scalar(f, ""), scalar(f, "#1")])
        else:
            setattr(m, f.name, scalar(f, ""))
    return m


def all_messages(messages):
    for d in messages:
        yield d
        yield from all_messages(d.nested_types)


def load_schema():
    with tempfile.NamedTemporaryFile(suffix=".pb") as out:
        protos = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "proto").glob("*.proto"))
        subprocess.run(["protoc", f"--descriptor_set_out={out.name}", "--include_imports", *protos], cwd=ROOT, check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for f in files.file:
        pool.Add(f)
    for f in files.file:
        yield from all_messages(pool.FindFileByName(f.name).message_types_by_name.values())


def message():
    """A header: type CHUNK, both flags and one that is not known yet, then fields of distinct bytes, and the sum; a body of 4 bytes, a
    bulk frame of 5, an empty one."""
    head = struct.pack("<4sBBHQII", b"\x4e\x56\x43\x48", 2, 4, 0x8003, 0x0102030405060708, 0x090A0B0C, 0x0D0E0F10) + bytes(
        range(0x20, 0x30)) + bytes(range(0x30, 0x38))
    parts = [b"body", b"bulk!", b""]
    total = 0
    for part in [head, *parts]:
        total = xxhash.xxh3_64_intdigest(part, seed=total)
    return head + struct.pack("<Q", total) + b"".join(parts)


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    (out / "message.bin").write_bytes(message())
    lines = []
    for d in load_schema():
        make = message_factory.GetMessageClass(d)
        members = [f for o in d.oneofs for f in o.fields]
        for chosen in members or [None]:
            name = f"{d.full_name}.{chosen.name}" if chosen else d.full_name
            (out / f"{name}.bin").write_bytes(fill(make(), chosen).SerializeToString(deterministic=True))
        for f in d.fields:
            enum = scalar(f, "") if f.type == F.TYPE_ENUM else 0
            lines.append(f"{d.full_name}.{f.name} {f.number} {enum}")
    (out / "fields.txt").write_text("\n".join(sorted(lines)) + "\n")


if __name__ == "__main__":
    main()
