"""The command line as a process: what reaches the pipes, closed pipes, and the main job as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# A command line whose `select_backbone` does what the test says, then answers with many candidates.
DRIVER = """
import os, sys
from types import ModuleType, SimpleNamespace
import hf_task2vec.cli as command_line

class Ranking(list):
    warnings, summary, score_name = (), "done", "accuracy"
    def to_dict(self):
        return {"candidates": [vars(candidate) for candidate in self]}

def select_backbone(dataset, **options):
    exec(os.environ["TEST_BODY"])
    fields = dict(score=0.5, low=0.4, high=0.6, measured=None, params_m=1.0, gmacs=1.0, input_px=224, license="mit")
    return Ranking(SimpleNamespace(rank=i, hub_id=f"org/checkpoint-{i}", **fields) for i in range(20_000))

module = ModuleType("hf_task2vec.selection")
module.select_backbone = select_backbone
sys.modules[module.__name__] = module
command_line.main()
"""


def start(body: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, "select", "org/data", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TEST_BODY": body, **environment},
    )


def test_nothing_but_the_document_reaches_stdout() -> None:
    noise = "print('from python'); os.write(1, b'from a native library\\n'); os.system('echo from a child process')"
    with start(noise, "--json") as process:
        stdout, stderr = process.communicate()
    assert len(json.loads(stdout)["candidates"]) == 20_000
    assert {"from python", "from a native library", "from a child process"} <= set(stderr.splitlines())


def test_reader_that_goes_away() -> None:
    with start("", "-q") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "org/checkpoint-0\n"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait() == 141


def test_narrow_encoding_is_no_error() -> None:
    with start("", PYTHONIOENCODING="ascii", PYTHONUTF8="0") as process:
        stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert stdout.splitlines()[1].split()[3] == "40.0-60.0"


def test_endpoint_and_offline_are_set_before_the_libraries_are_imported() -> None:
    body = "import huggingface_hub.constants as c; sys.stderr.write(f'{c.ENDPOINT} {c.HF_HUB_OFFLINE}\\n')"
    with start(body, "--endpoint", "http://127.0.0.1:9/", "--offline") as process:
        stderr = process.communicate()[1]
    assert stderr.splitlines() == ["http://127.0.0.1:9 True"]


# ---------------------------------------------------------------------------------------------- as a user types them


def command(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("hf-task2vec")
    assert script.exists(), f"{script} is missing: install the package first (pip install -e .)"
    return subprocess.run([script, *arguments], capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture(scope="module")
def digits() -> dict:
    result = command("select", "sklearn:digits", "--max-samples", "64", "--offline", "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_select_the_sample(digits: dict) -> None:
    assert digits["dataset"] == "sklearn:digits"
    candidates = digits["candidates"]
    assert len(candidates) >= 10
    for candidate in candidates:
        assert candidate["hub_id"].count("/") == 1
        assert candidate["std"] > 0
    scores = [candidate["score"] for candidate in candidates]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_limits_hold(digits: dict) -> None:
    limits = ["--max-params", "10M", "--license", "apache-2.0", "--max-samples", "64", "--offline"]
    result = command("select", "sklearn:digits", *limits, "--json")
    assert result.returncode == 0, result.stderr
    candidates = json.loads(result.stdout)["candidates"]
    assert candidates
    assert all(c["params_m"] <= 10 and c["license"] == "apache-2.0" for c in candidates)
    assert any(c["params_m"] > 10 or c["license"] != "apache-2.0" for c in digits["candidates"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["select", "./no-such-folder"], 3, "no-such-folder"),
        (["select", "sklearn:digits", "--max-params", "1", "--max-samples", "64"], 6, "max_params"),
        (["index", "info", "no-such-index"], 4, "no-such-index"),
        (["distance", "no-such-task", "mnist"], 4, "'no-such-task' is neither a folder nor a task of the index"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    result = command(*arguments, "--json", "--offline", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_embeddings_and_their_distance(tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "1")):
        result = command("embed", "sklearn:digits", "-o", tmp_path / name, "--max-samples", "64", "--seed", seed, "-q")
        assert (result.returncode, result.stdout) == (0, f"{tmp_path / name}\n"), result.stderr
    result = command("distance", "a", "b", "dtd_10", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (zero, near, far), *_ = json.loads(result.stdout)["distances"]
    assert abs(zero) < 1e-6
    assert near < far / 2


def test_shipped_index() -> None:
    result = command("index", "validate", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["valid"] is True
    assert command("index", "info").returncode == 0
