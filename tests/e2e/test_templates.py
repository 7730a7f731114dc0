"""Real chat templates beside jinja2, set up as transformers does it; real vocabularies beside the ids of their own tokenizers."""
import datetime
import json
import pathlib
import subprocess
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox
import pytest

from conftest import BUILD, SLOW

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "golden"))
import corpus  # noqa: E402

NOW = 1767225600
# Both render, and differ: HTML escapes that jinja2 makes of text which a template declared safe.
DIFFER = {"meetkai-functionary-medium-v3.1.jinja"}
TEMPLATES_MIN = 60


@pytest.fixture(scope="module")
def models():
    return corpus.fetch()


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_as_it_is"), [], [], body).set_lineno(line)

    def _as_it_is(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(f)
    return env


TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "Get the weather — 날씨",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "City"}, "days": {"type": "integer", "default": 3},
                                                    "unit": {"type": "string", "enum": ["c", "f"]}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "now", "description": "Time", "parameters": {"type": "object", "properties": {}}}}]


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def call(arguments):
    return turn("assistant", "", tool_calls=[{"id": "call12345", "type": "function",
                                              "function": {"name": "get_weather", "arguments": arguments}}])


def result(text):
    return turn("tool", text, tool_call_id="call12345", name="get_weather")


CHATS = [
    [turn("user", "Hello there")],
    [turn("system", "You are terse."), turn("user", "안녕하세요, <b>world</b>?")],
    [turn("system", "Sys"), turn("user", "one"), turn("assistant", "two"), turn("user", "  three \n"), turn("assistant", "four\n\n"),
     turn("user", "five")],
    [turn("user", "one"), turn("assistant", "two"), turn("user", "three")],
    [turn("user", "q1"), turn("assistant", "<think>\nhmm\n</think>\n\nans"), turn("user", "q2")],
    [turn("user", "q1"), turn("assistant", "ans", reasoning_content="because"), turn("user", "q2")],
    [turn("user", "weather in Seoul?"), call({"city": "서울", "days": 2}), result('{"t": 21}'), turn("assistant", "21 degrees"),
     turn("user", "thanks")],
    [turn("system", "s"), turn("user", "weather?"), call('{"city": "Paris"}'), result("21")],
    [turn("user", [{"type": "text", "text": "look"}, {"type": "text", "text": " here"}])],
    [turn("assistant", "x"), turn("assistant", "y")],
    [turn("developer", "dev"), turn("user", "x")],
    [turn("user", "é👍🏽 \u3000x\u00a0"), turn("assistant", "ſß"), turn("user", "Ünï \t")],
]
MORE = [{}, {"enable_thinking": False}, {"tools": TOOLS}, {"tools": TOOLS, "enable_thinking": True, "add_generation_prompt": False},
        {"documents": [{"title": "T", "text": "body"}]}]


def contexts():
    for messages in CHATS:
        for more in MORE:
            yield {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
                   "add_generation_prompt": True, **more}


def ours(path, context):
    done = subprocess.run([BUILD / "tests" / "bench" / "jinja", path], input=json.dumps({**context, "now": NOW}).encode(),
                          capture_output=True, timeout=60 * SLOW)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.decode() if done.returncode == 0 else None


def theirs(text, context):
    try:
        return environment().from_string(text).render(**context)
    except (jinja2.exceptions.TemplateError, TypeError):
        return None


def test_real_templates_render_as_by_jinja2(models):
    paths = sorted((models / "templates").glob("*.jinja"))
    assert len(paths) >= TEMPLATES_MIN
    same = refused = 0
    wrong = []
    for path in paths:
        for context in contexts():
            want, got = theirs(path.read_text(), context), ours(path, context)
            if want is None:
                refused += got is None  # where jinja2 stumbles over its own lazy lists, we may go on
            elif want == got:
                same += 1
            elif path.name not in DIFFER or got is None:
                wrong.append((path.name, want, got))
    assert not wrong, wrong[0]
    print(f"{len(paths)} templates: {same} renderings equal, {refused} refused by both")
    assert same > 3500


VOCABULARIES = ["command-r", "gpt-2", "llama-bpe", "llama-spm", "mpt", "phi-3", "qwen2", "qwen35", "refact", "starcoder"]


@pytest.mark.parametrize("name", VOCABULARIES)
def test_real_vocabularies_give_their_own_ids(models, name):
    path = models / f"ggml-vocab-{name}.gguf"
    texts = pathlib.Path(f"{path}.inp").read_bytes()
    done = subprocess.run([BUILD / "tests" / "bench" / "encode", path], input=texts, capture_output=True, timeout=60 * SLOW)
    assert done.returncode == 0, done.stderr
    got = done.stdout.decode().splitlines()
    want = pathlib.Path(f"{path}.out").read_text().splitlines()
    assert len(want) >= 40
    cases = texts.decode().split("\n__ggml_vocab_test__\n")
    wrong = [(t, w, g) for t, w, g in zip(cases, want, got) if w.split() != g.split()]
    assert not wrong, wrong[0]
