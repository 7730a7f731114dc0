"""The rules of docs/CONVENTIONS.md that a machine can check: who may include what, and how large things are."""
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVICES = ["gateway", "tokenizer-svc", "video-svc", "model-svc", "cache-svc"]

# Third-party header (a pattern of what stands between <>) -> the only files that may include it.
OWNERS = {
    r"zmq": ["common/wire/bus"],
    r"sodium": ["common/base/hash"],
    r"xxhash": ["common/base/hash"],
    r"jansson": ["common/json/json"],
    r"microhttpd": ["gateway/http"],
    r"hiredis/": ["cache-svc/store"],
    r"lib(av|sw)\w+/": ["video-svc/decode/media"],
    r"(tesseract|leptonica)/": ["video-svc/decode/ocr"],
    r"jpeglib": ["video-svc/decode/jpeg"],
    r"seccomp": ["video-svc/decode/sandbox"],
    r"cblas": ["engine/backend/reference"],
    r"pcre2": ["tokenizer-svc/pretok"],
    r"utf8proc": ["tokenizer-svc/pretok"],
    r"curl/": ["cli/http", "common/trace/export"],
    r"archive": ["cli/fetch"],
    r"protobuf-c/": ["common/wire/pb"],
}
FUNCTION_LINES_MAX = 90
FILE_LINES_MAX = 800


def sources(*suffixes):
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                           capture_output=True, text=True).stdout.split()
    return [ROOT / n for n in names if n.endswith(suffixes) and (ROOT / n).exists()]


def includes(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if found:
            yield number, found.group(1), found.group(2)


def product(path):
    return "tests" not in path.relative_to(ROOT).parts


def test_every_third_party_header_has_one_place():
    wrong = []
    for path in filter(product, sources(".c", ".h")):
        name = str(path.relative_to(ROOT))
        for number, kind, header in includes(path):
            for pattern, owners in OWNERS.items():
                if kind == "<" and re.match(pattern, header) and not any(re.fullmatch(re.escape(o) + r"(_\w+)?\.[ch]", name) for o in owners):
                    wrong.append(f"{name}:{number}: <{header}> belongs to {owners}")
    assert not wrong, "\n".join(wrong)


def test_no_service_includes_another():
    wrong = []
    for path in filter(product, sources(".c", ".h")):
        folder = path.relative_to(ROOT).parts[0]
        for number, kind, header in includes(path):
            top = header.split("/")[0]
            if kind == '"' and top in SERVICES + ["cli"] and top != folder:
                wrong.append(f"{path.relative_to(ROOT)}:{number}: includes {header}")
            if kind == '"' and folder in ("common", "engine") and top in SERVICES + ["cli"]:
                wrong.append(f"{path.relative_to(ROOT)}:{number}: a library includes {header}")
            if folder == "common" and kind == '"' and top == "engine":
                wrong.append(f"{path.relative_to(ROOT)}:{number}: common includes the engine")
    assert not wrong, "\n".join(wrong)


def test_base_knows_no_other_library():
    wrong = [f"{p.relative_to(ROOT)}:{n}: {h}" for p in sources(".c", ".h") if p.is_relative_to(ROOT / "common" / "base")
             for n, kind, h in includes(p) if kind == '"' and not h.startswith("common/base/")]
    assert not wrong, "\n".join(wrong)


def test_only_the_gate_unpacks_protobuf():
    wrong = [str(p.relative_to(ROOT)) for p in filter(product, sources(".c"))
             if re.search(r"\w__unpack\s*\(|protobuf_c_message_unpack\s*\(", p.read_text()) and p.name != "pb.c"]
    assert not wrong, wrong


def test_no_unsafe_functions():
    pattern = re.compile(r"\b(sprintf|vsprintf|strcpy|strcat|atoi|atol|atof|gets|rand|srand|alloca|strtok)\s*\(")
    wrong = []
    for path in filter(product, sources(".c", ".h")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if pattern.search(re.sub(r"//.*|/\*.*?\*/|\"(\\.|[^\"])*\"", "", line)) and not line.lstrip().startswith("*"):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not wrong, "\n".join(wrong)


def test_no_file_and_no_function_is_a_hall():
    wrong = []
    for path in filter(product, sources(".c", ".h")):
        lines = path.read_text().splitlines()
        if len(lines) > FILE_LINES_MAX:
            wrong.append(f"{path.relative_to(ROOT)}: {len(lines)} lines")
        start = None
        for number, line in enumerate(lines, 1):
            if line == "{":
                start = number
            elif line == "}" and start is not None:
                if number - start > FUNCTION_LINES_MAX:
                    wrong.append(f"{path.relative_to(ROOT)}:{start}: a function of {number - start} lines")
                start = None
    assert not wrong, "\n".join(wrong)


def test_every_header_says_what_it_is_for():
    wrong = [str(p.relative_to(ROOT)) for p in filter(product, sources(".h")) if not p.read_text().startswith("/*")]
    assert not wrong, wrong


def test_every_service_has_its_page_and_its_shape():
    for service in SERVICES:
        for name in ("README.md", "main.c", "serve.c", "core.c"):
            assert (ROOT / service / name).exists(), f"{service}/{name}"
        assert len((ROOT / service / "main.c").read_text().splitlines()) <= 110, f"{service}/main.c is more than a page"


def test_no_two_archives_define_one_name():
    """The linker takes the first archive that has a name: a second one would be silently another function."""
    build = pathlib.Path(os.environ.get("NUNCHI_BUILD", ROOT / "build"))
    archives = sorted((build / "lib").glob("lib*.a"))
    if not archives:
        pytest.skip(f"nothing is built in {build}")
    owner, wrong = {}, []
    for archive in archives:
        lines = subprocess.run(["nm", "--extern-only", "--defined-only", archive], check=True, capture_output=True, text=True).stdout
        for name in {line.split()[2] for line in lines.splitlines() if len(line.split()) == 3 and line.split()[1] not in "WwVvu"}:
            if owner.setdefault(name, archive.name) != archive.name:
                wrong.append(f"{name}: {owner[name]} and {archive.name}")
    assert not wrong, "\n".join(wrong)
