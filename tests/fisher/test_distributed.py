"""One embedding shared among processes: the same as that of one process, and no hang when one of them fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.fisher.processes import launch, launched

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
# Fewer images than processes, even and uneven shares.
JOBS: dict[str, dict[str, Any]] = {
    "two": {"count": 2},
    "seven": {"count": 7},
    "more": {"count": 24, "samples": 23},
    "large": {"count": 60, "batch_size": 7},
}
WORLDS = (2, 3)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared_jobs")
    jobs = [{"name": name, **job} for name, job in JOBS.items()]
    jobs.append({"name": "samples", "count": 24, "samples": 9, "other_sample": True})
    worlds = json.dumps(dict.fromkeys((1, *WORLDS), jobs))
    command = [sys.executable, "-m", "tests.support.shared_jobs", str(folder), worlds]
    # The limit is what tells a hang: gloo itself would wait for half an hour.
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    return folder


def facts(folder: Path, name: str, label: str, rank: int) -> dict[str, Any]:
    return json.loads((folder / f"{name}.{label}.{rank}.json").read_text())


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("count", WORLDS)
def test_equal_to_one_process(done: Path, count: int, name: str) -> None:
    expected, described = np.load(done / f"{name}.1.0.npz"), facts(done, name, "1", 0)["descriptors"]
    assert {"early_accuracy_gain", "mid_accuracy_gain"} <= described.keys()
    every = [facts(done, name, str(count), rank) for rank in range(count)]
    assert sum(one["calls"] for one in every) == described["n_samples"], "every image is used once"
    for rank in range(count):
        found = np.load(done / f"{name}.{count}.{rank}.npz")
        for array in ("values", "feature_mean", "feature_var"):
            scale = expected[array].max()
            np.testing.assert_allclose(found[array], expected[array], rtol=1e-6, atol=1e-9 * scale)
        assert every[rank]["descriptors"] == pytest.approx(described, rel=1e-6)


@pytest.mark.parametrize("count", WORLDS)
def test_the_main_process_alone_tells_of_the_embedding_and_each_of_other_samples(done: Path, count: int) -> None:
    main, *others = ((done / f"{count}.{rank}.log").read_text() for rank in range(count))
    assert main.count("embedding dataset: ") == len(JOBS)
    assert f"{count} process(es)" in main
    assert not any("embedding dataset: " in other for other in others)
    for rank in range(count):
        error = facts(done, "samples", str(count), rank)["error"]
        assert error.startswith("DistributedError: the processes were given different task: [")


def test_launched_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # as some batch systems set it
    monkeypatch.setenv("RANK", "3")
    assert launch() == (0, 1)
    with launched() as processes:
        assert processes is None
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launch() == (3, 8)


# ------------------------------------------------------------------------------------------------ as users launch it


def accelerate_launch(count: int, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    # With --cpu, accelerate 1.15 starts one process whatever the count; torchrun, behind --multi_gpu, needs no GPU.
    options = ["--multi_gpu", "--num_processes", str(count), "--num_machines", "1", "--mixed_precision", "no"]
    return subprocess.run(
        [*launcher, *options, "--main_process_port", "0", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, **environment},
        timeout=240,
        check=False,
    )


EMBED = ("embed", "sklearn:digits", "--max-samples", "21", "--batch-size", "4", "--offline", "--device", "cpu")


@pytest.mark.slow
def test_the_command_line_under_accelerate_launch(tmp_path: Path) -> None:
    result = accelerate_launch(2, "-m", "hf_task2vec.cli", *EMBED, "-o", tmp_path / "two", "--json", "-v")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["descriptors"]["n_samples"] == 21
    assert result.stderr.count("2 process(es)") == 1
    assert result.stderr.count("rows of sklearn:digits drawn") == 1
    alone = subprocess.run([sys.executable, "-m", "hf_task2vec.cli", *EMBED, "-o", tmp_path / "one"], env=ENVIRONMENT)
    assert alone.returncode == 0
    one, two = TaskEmbedding.load(tmp_path / "one"), TaskEmbedding.load(tmp_path / "two")
    floor = 1e-9 * one.values.max()
    np.testing.assert_allclose(two.values, one.values, rtol=1e-6, atol=floor)


FAILING = """
import os, sys
import hf_task2vec.embedding.embed as embed
from hf_task2vec.cli import main
def fail(*_, **__):
    if sys.argv[1] == "killed":
        os._exit(9)
    raise OSError("this process ran out of luck")
if os.environ["RANK"] == "1":
    embed.diagonal_fisher = fail
del sys.argv[1]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["raises", "killed"])
def test_a_failing_process_ends_the_launched_job(tmp_path: Path, way: str) -> None:
    script = tmp_path / "job.py"
    script.write_text(FAILING)
    result = accelerate_launch(2, script, way, *EMBED, "-o", tmp_path / "out")
    assert result.returncode != 0
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()
    if way == "raises":
        assert "error: this process ran out of luck" in result.stderr.splitlines()


@pytest.mark.slow
def test_mistakes_on_the_command_line(tmp_path: Path) -> None:
    arguments = ("embed", "./no-such-folder", "-o", tmp_path / "out", "--offline")
    result = accelerate_launch(2, "-m", "hf_task2vec.cli", *arguments)
    assert result.returncode != 0
    assert sum(line.startswith("error: ") and "no-such-folder" in line for line in result.stderr.splitlines()) == 1
    result = accelerate_launch(2, "-m", "hf_task2vec.cli", "index", "info")
    assert result.returncode != 0
    assert "error: this command runs in one process: start it without accelerate launch" in result.stderr
