"""`hf extensions install` finds the console script, and `hf task2vec …` runs it; only GitHub is stubbed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What `hf extensions install` fetches from GitHub comes from this checkout; its requirements, from this environment.
INSTALL = """
import subprocess, sys
from pathlib import Path
from huggingface_hub.cli import extensions, hf

root, packages = sys.argv[1:3]
requested = []
def fail(**options):
    raise FileNotFoundError("no file hf-task2vec at the root of the repository")
extensions._github_repo_exists = lambda **options: True
extensions._fetch_remote_binary = fail
extensions._fetch_latest_commit_sha = lambda **options: "0" * 40
extensions._try_fetch_remote_description = lambda **options: None
run = subprocess.run
def install(command, **options):
    if not str(command[-1]).startswith("https://github.com/"):
        return run(command, **options)
    requested.append(command[-1])
    (site,) = Path(command[0]).parents[1].glob("lib/python*/site-packages")
    (site / "requirements.pth").write_text(packages)
    return run([*command[:-1], "--no-deps", "--no-build-isolation", "--no-index", root], **options)
extensions.shutil.which = lambda name: None  # pip rather than uv
extensions.subprocess.run = install
extensions._can_run = lambda python: False
sys.argv = ["hf", "extensions", "install", "someone/hf-task2vec"]
try:
    hf.main()
finally:
    print(requested)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.name == "nt", reason="the folders of a virtual environment differ")
def test_hf_finds_and_runs_the_program(tmp_path: Path) -> None:
    environment = {
        **{key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HF_TOKEN")},
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
    }

    def run(*command: str) -> str:
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    installed = run(sys.executable, "-c", INSTALL, str(ROOT), sysconfig.get_path("purelib"))
    assert "https://github.com/someone/hf-task2vec/archive/HEAD.zip" in installed
    hf = str(Path(sys.executable).with_name("hf"))
    assert "Usage: hf-task2vec" in run(hf, "task2vec", "--help")
    ranked = run(hf, "task2vec", "select", "sklearn:digits", "--max-samples", "16", "--top-k", "2")
    assert "80 % interval" in ranked
    assert "Take " in ranked
