"""A Docker Engine for the test: the one that runs, or one of our own in a temporary folder, with a base image made from Debian's
packages where no registry can be reached."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import time

BASE = "debian:bookworm-slim"


def docker(*args, env, **kw):
    return subprocess.run(["docker", *args], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, **kw)


def answers(env):
    return docker("version", "--format", "{{.Server.Version}}", env=env).returncode == 0


@contextlib.contextmanager
def engine(folder):
    """Yields the environment that reaches an engine. Raises RuntimeError with the reason where none can run."""
    env = dict(os.environ)
    if answers(env):
        yield env
        return
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        raise RuntimeError("no Docker Engine answers, and only root with dockerd installed can start one")
    # Not in the test's own temporary folder: layers are kept for the next run, and overlay wants a plain file system.
    root = pathlib.Path(os.environ.get("NUNCHI_DOCKER_ROOT", "/var/tmp/nunchi-docker"))
    root.mkdir(parents=True, exist_ok=True)
    socket, log = root / "docker.sock", open(folder / "dockerd.log", "w")
    env["DOCKER_HOST"] = f"unix://{socket}"
    process = subprocess.Popen(["dockerd", "--data-root", root / "data", "--exec-root", root / "exec", "--pidfile", root / "pid",
                                "-H", env["DOCKER_HOST"]], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 60
        while not answers(env):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("dockerd does not run here:\n" + (folder / "dockerd.log").read_text()[-2000:])
            time.sleep(0.1)
        yield env
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def base_image(env, folder):
    """debian:bookworm-slim: there already, pulled, or bootstrapped from the package mirror and imported under that name."""
    if docker("image", "inspect", BASE, env=env).returncode == 0 or docker("pull", "-q", BASE, env=env).returncode == 0:
        return
    root = folder / "rootfs"
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", root], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL)
    sources = root / "etc" / "apt" / "sources.list"
    sources.write_text("deb http://deb.debian.org/debian bookworm main\n"
                       "deb http://deb.debian.org/debian bookworm-updates main\n"
                       "deb http://deb.debian.org/debian-security bookworm-security main\n")
    tar = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(["docker", "import", "-", BASE], env=env, stdin=tar.stdout, check=True, stdout=subprocess.DEVNULL)
    assert tar.wait() == 0
    shutil.rmtree(root)
