"""Disks without room, real ones of a few megabytes: what cannot be kept is refused with a sentence, questions go on, and room that comes is used."""
import json
import subprocess

import pytest

import sys
import pathlib
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import videos  # noqa: E402
from conftest import until  # noqa: E402


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a disk of so many megabytes at a folder."""
    mounted = []

    def mount(folder, megabytes):
        folder.mkdir(parents=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", folder], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"no disk of our own: {done.stderr.strip()}")
        mounted.append(folder)
        return folder
    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    """Takes all the room that is left; returns the file that has it."""
    hog = folder / "hog"
    with hog.open("wb", buffering=0) as f:
        for piece in (65536, 1):
            try:
                while f.write(b"\0" * piece):
                    pass
            except OSError:
                pass
    return hog


def upload(cluster, path):
    """(status, body): through a raw multipart body, so that no client of ours reads meaning into it."""
    parts = (b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n'
             b"Content-Type: video/mp4\r\n\r\n" + path.read_bytes() + b"\r\n--b--\r\n")
    status, _, body = cluster.request("POST", "/v1/files", parts, {"Content-Type": "multipart/form-data; boundary=b"}, timeout=60)
    return status, json.loads(body)


def answers(cluster):
    model = cluster.openai().models.list().data[0].id
    status, _, reply = cluster.post_json("/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4},
                                         {"Cache-Control": "no-store"})
    return status == 200 and reply["usage"]["completion_tokens"] > 0


def processed(cluster, file_id):
    until(lambda: json.loads(cluster.get(f"/v1/files/{file_id}")[2]).get("status") == "processed", 60, "the video to be read")


def test_a_full_spool(own_cluster, small_disk, tmp_path):
    spool = small_disk(tmp_path / "c0" / "spool", 4)
    c = own_cluster()
    pid = c.pid("video")
    video = videos.make(tmp_path / "v.mp4", [("red", "ONE"), ("blue", "TWO")], seconds=2)
    hog = fill(spool)
    status, body = upload(c, video)
    assert status == 503 and "no room" in body["error"]["message"], body
    assert answers(c)
    hog.unlink()
    status, body = upload(c, video)
    assert status == 200, body
    processed(c, body["id"])
    assert c.pid("video") == pid


def test_a_full_redis_disk(own_cluster, small_disk, tmp_path):
    home = tmp_path / "c0"
    disk = small_disk(home / "redis", 8)
    c = own_cluster()
    video = videos.make(tmp_path / "v.mp4", [("red", "ONE"), ("blue", "TWO")], seconds=2)
    hog = fill(disk)
    status, body = upload(c, video)
    if status == 200:  # Redis writes its file once a second: what it took before it noticed is in its memory
        until(lambda: upload(c, videos.pancake(tmp_path / "p.mp4"))[0] != 200, 30, "uploads to be refused")
    status, body = upload(c, video)
    assert status == 503, body
    assert body["error"]["message"]
    assert answers(c)
    hog.unlink()
    until(lambda: upload(c, video)[0] == 200, 60, "uploads to be taken again")
    processed(c, upload(c, video)[1]["id"])
