"""Every service restarted, one after another, under load: no request is lost and no byte is another."""
import os
import signal
import sys
import pathlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import load  # noqa: E402
from conftest import until  # noqa: E402


def ports(cluster):
    return lambda: [s["port"] for s in cluster.services().values() if s["port"]]


def test_a_rolling_restart_loses_nothing(own_cluster):
    c = own_cluster(workers=2, args=["--gateways", "2", "--caches", "2"])
    assert len(ports(c)()) == 2
    steady = load.Load(ports(c))
    steady.learn()
    before = {name: s["pid"] for name, s in c.services().items()}
    with steady:
        until(lambda: steady.answered() >= 6, 60, "the load to run")
        done = c.nunchi("restart")
        assert done.returncode == 0, done.stdout + done.stderr
        seen = steady.answered()
        until(lambda: steady.answered() >= seen + 12, 60, "the load to go on")
    steady.check()
    after = c.services()
    for name, pid in before.items():
        assert (after[name]["pid"] == pid) == name.startswith("redis"), name
    # each ended by itself, in time
    assert c.log("supervisor").count('"service ended"') == c.log("supervisor").count('"code":0')


def test_a_gateway_killed_takes_only_its_own(own_cluster):
    c = own_cluster(workers=2, args=["--gateways", "2"])
    first, second = ports(c)()
    one = load.Load(lambda: [first], n_questions=8, streams=3)
    two = load.Load(lambda: [second], n_questions=8, streams=3, gateway_is_killed=True)
    one.learn()
    two.known = one.known
    with one, two:
        until(lambda: one.answered() >= 3 and two.answered() >= 3, 60, "both to answer")
        pid = c.kill("gateway-2", signal.SIGKILL)
        c.wait_restarted("gateway-2", pid)
        n = one.answered(), two.answered()
        until(lambda: one.answered() >= n[0] + 6 and two.answered() >= n[1] + 6, 60, "both to go on")
    one.check()
    assert two.counts["wrong"] == 0 and two.counts["lost"] <= 3, two.complaints
    assert c.services()["gateway"]["restarts"] == 0


def test_what_is_told_to_end_ends_when_its_answers_do(own_cluster):
    c = own_cluster(workers=2)
    steady = load.Load(ports(c), n_questions=8, streams=4)
    steady.learn()
    with steady:
        until(lambda: steady.answered() >= 4, 60, "the load to run")
        for name in ("model-1", "tokenizer", "cache", "model-2"):
            pid = c.kill(name, signal.SIGTERM)
            c.wait_restarted(name, pid)
            n = steady.answered()
            until(lambda: steady.answered() >= n + 4, 60, f"answers after {name} ended")
    steady.check()
    assert c.log("supervisor").count('"service ended"') == c.log("supervisor").count('"code":0') == 4


def test_an_upload_outlives_the_gateway_it_came_through(own_cluster, tmp_path):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
    import openai
    import videos
    c = own_cluster(args=["--gateways", "2"])
    first, second = (openai.OpenAI(base_url=f"http://127.0.0.1:{p}/v1", api_key="none", max_retries=0) for p in ports(c)())
    file = first.files.create(file=videos.pancake(tmp_path / "p.mp4").open("rb"), purpose="user_data")
    os.kill(c.pid("gateway"), signal.SIGKILL)
    until(lambda: second.files.retrieve(file.id).status == "processed", 60, "the video to be read")
    answer = second.chat.completions.create(model="smollm2-135m-instruct", max_tokens=48, temperature=0, messages=[{"role": "user", "content": [
        {"type": "file", "file": {"file_id": file.id}}, {"type": "text", "text": "What does Anna serve the pancake with?"}]}])
    assert "syrup" in answer.choices[0].message.content.lower()
