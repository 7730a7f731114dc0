"""Real vocabularies and chat templates of other people's models, with texts and the ids that their own tokenizers give: they lie in the
source of the Python package llama-cpp-python (vendor/llama.cpp/models). Fetched into a cache, never part of this repository."""
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

PACKAGE = "llama-cpp-python==0.3.36"
INSIDE = "vendor/llama.cpp/models/"


def fetch():
    """The folder with ggml-vocab-*.gguf and templates/."""
    base = pathlib.Path(os.environ.get("NUNCHI_HOME") or os.path.expanduser("~/.cache/nunchi")) / "corpus"
    done = base / PACKAGE.replace("==", "-")
    if done.is_dir():
        return done
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base) as tmp:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:",
                        "--no-build-isolation", "--dest", tmp, PACKAGE], check=True, timeout=600)
        (archive,) = pathlib.Path(tmp).glob("*.tar.gz")
        out = pathlib.Path(tmp) / "models"
        with tarfile.open(archive) as tar:
            for member in tar:
                at = member.name.find("/" + INSIDE)
                if member.isfile() and at > 0:
                    to = out / member.name[at + 1 + len(INSIDE):]
                    to.parent.mkdir(parents=True, exist_ok=True)
                    with tar.extractfile(member) as f, open(to, "wb") as g:
                        shutil.copyfileobj(f, g)
        try:
            out.rename(done)
        except OSError:
            if not done.is_dir():  # another test was faster
                raise
    return done
