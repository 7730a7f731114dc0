"""docker compose, for real: build, up, ask through the published port, scale, kill a container, ask again, down."""
import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import engine  # noqa: E402
import videos  # noqa: E402
from conftest import until  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(3000)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Project:
    def __init__(self, env, folder):
        self.port = free_port()
        self.env = dict(env, NUNCHI_PORT=str(self.port), COMPOSE_PROJECT_NAME=f"nunchi{os.getpid()}", COMPOSE_HTTP_TIMEOUT="300",
                        COMPOSE_FILE=f"docker-compose.yml:{folder}/house.yml")
        plugin = subprocess.run(["docker", "compose", "version"], env=self.env, capture_output=True).returncode == 0
        self.command = ["docker", "compose"] if plugin else ["docker-compose"]
        # A house with a certificate authority and package index of its own hands both to pip inside the container.
        bundle = os.environ.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt"
        house = {k: v for k, v in os.environ.items() if k.startswith("PIP_") and k != "PIP_FIND_LINKS"} | {"PIP_CERT": "/etc/house-ca.crt"}
        (folder / "house.yml").write_text(json.dumps({"version": "3.8", "services": {"models": {
            "environment": house, "volumes": [f"{bundle}:/etc/house-ca.crt:ro"]}}}))

    def __call__(self, *args, check=True):
        done = subprocess.run([*self.command, *args], cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        assert not check or done.returncode == 0, f"{' '.join(args)}:\n{done.stdout[-6000:]}"
        return done.stdout

    def containers(self, service):
        return self("ps", "-q", service).split()

    def client(self):
        import openai
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", timeout=300, max_retries=0)

    def ready(self):
        import http.client
        try:
            c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            c.request("GET", "/readyz")
            return c.getresponse().status == 200
        except OSError:
            return False

    def inspect(self, container):
        return json.loads(engine.docker("inspect", container, env=self.env).stdout)[0]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    if os.environ.get("NUNCHI_SKIP_COMPOSE") == "1":
        pytest.skip("NUNCHI_SKIP_COMPOSE=1: the containers were not tried")
    folder = tmp_path_factory.mktemp("compose")
    with engine.engine(folder) as env:
        engine.base_image(env, folder)
        p = Project(env, folder)
        try:
            p("build")
            p("up", "-d")
            until(p.ready, 300, "the cluster to be ready")
            yield p
        finally:
            if sys.exc_info()[0]:
                print(p("logs", "--tail=40", check=False))
            p("down", "-v", "--remove-orphans", check=False)


def question(project):
    client = project.client()
    return client.chat.completions.create(model=client.models.list().data[0].id, max_tokens=16, temperature=0, extra_headers={"Cache-Control": "no-store"},
                                          messages=[{"role": "user", "content": "What is 2+2?"}]).choices[0].message.content


def test_asks_through_the_published_port(project):
    assert "4" in question(project)


def test_a_video_in_containers(project, tmp_path):
    client = project.client()
    file = client.files.create(file=videos.pancake(tmp_path / "pancake.mp4").open("rb"), purpose="user_data")
    answer = client.chat.completions.create(model=client.models.list().data[0].id, max_tokens=48, temperature=0, messages=[{"role": "user", "content": [
        {"type": "file", "file": {"file_id": file.id}}, {"type": "text", "text": "What does Anna serve the pancake with?"}]}])
    assert "syrup" in answer.choices[0].message.content.lower()


def test_containers_are_locked_down(project):
    for service in ("gateway", "tokenizer-svc", "video-svc", "model-svc", "cache-svc", "redis"):
        for container in project.containers(service):
            told = project.inspect(container)
            assert told["HostConfig"]["ReadonlyRootfs"], service
            assert told["HostConfig"]["CapDrop"] == ["ALL"], service
            assert told["Config"]["User"] not in ("", "root", "0"), service
            assert "no-new-privileges:true" in told["HostConfig"]["SecurityOpt"], service


def test_every_service_becomes_healthy(project):
    def all_healthy():
        return all(project.inspect(c)["State"].get("Health", {}).get("Status") == "healthy"
                   for s in ("gateway", "tokenizer-svc", "video-svc", "model-svc", "cache-svc", "redis") for c in project.containers(s))
    until(all_healthy, 120, "all health checks to pass")


def test_scales_and_survives_a_killed_container(project):
    project("up", "-d", "--no-recreate", "--scale", "model-svc=3", "--scale", "tokenizer-svc=2")
    assert len(project.containers("model-svc")) == 3 and len(project.containers("tokenizer-svc")) == 2

    def model_workers():
        import urllib.request
        text = urllib.request.urlopen(f"http://127.0.0.1:{project.port}/metrics", timeout=10).read().decode()
        return [line for line in text.splitlines() if line.startswith("nunchi_gateway_workers") and 'service="model"' in line]
    until(lambda: any(line.endswith(" 3") for line in model_workers()), 120, "three model workers")
    assert "4" in question(project)
    victim = project.containers("model-svc")[0]
    assert engine.docker("kill", victim, env=project.env).returncode == 0
    assert "4" in question(project)
    until(lambda: any(line.endswith((" 2", " 3")) for line in model_workers()), 60, "the loss to be seen")
    assert "4" in question(project)
