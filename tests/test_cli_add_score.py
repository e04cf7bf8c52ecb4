"""`hf-task2vec index add-score` as a user types it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_stub import run, stub
from synthetic import embedding, zoo

from hf_task2vec.zoo import ZooIndex

SCORE = ("--checkpoint", "org/small", "--score", "0.93", "--protocol", "full_finetune", "--n-test", "200")


@pytest.fixture(autouse=True)
def _in_an_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    zoo().save("zoo")
    embedding(9, task={"dataset": "Photos"}).save("photos-embedding")
    yield
    assert not logging.getLogger("hf_task2vec").handlers


def test_add_validate_add_again() -> None:
    result = run("index", "add-score", "mine", "--base", "zoo", "--task", "photos-embedding", *SCORE, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["path"] == "mine"
    assert document["new"] == ["index", "task", "embedding", "source"]
    assert document["score"]["task"] == "photos"
    assert (document["score"]["score"], document["score"]["n_test"]) == (0.93, 200)
    assert "moves no ranking yet" in document["notes"][0]
    assert run("index", "validate", "mine").exit_code == 0
    again = run("index", "add-score", "mine", "--task", "photos", *SCORE)
    assert (again.exit_code, again.stdout) == (4, "")
    assert "mine already holds 0.93 of org/small on 'photos'" in again.stderr
    assert "--replace" in again.stderr
    replaced = run("index", "add-score", "mine", "--task", "photos", *SCORE, "--score", "0.9", "--replace", "-q")
    assert (replaced.exit_code, replaced.stdout, replaced.stderr) == (0, "mine\n", "")
    assert [row.score for row in ZooIndex.load("mine").rows["scores"] if row.source == "local"] == [0.9]


def test_for_a_reader() -> None:
    result = run("index", "add-score", "zoo", "--task", "task1", *SCORE)
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if not line.startswith(" "))
    assert rows["score.checkpoint"] == "org/small"
    assert rows["comparable"] == "1"
    assert rows["notes"].startswith("alone in its group")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--task", "task1"], 2, "Missing option"),
        (["--task", "task1", *SCORE, "--score", "93"], 4, "is it in per cent? Then give 0.93"),
        (["--task", "task1", *SCORE, "--score", "much"], 2, "'much' is not a valid float"),
        (["--task", "task1", *SCORE, "--n-test", "0"], 4, "n_test=0 must be at least 1"),
        (["--task", "tusk1", *SCORE], 4, "did you mean 'task1'"),
        (["--task", "task1", *SCORE, "--checkpoint", "org/smal"], 4, "did you mean 'org/small'"),
        (["--task", "task1", *SCORE, "--metric", "loss"], 4, "column metric: found 'loss'"),
        (["--task", "task1", *SCORE, "--protocol", "my way"], 4, "column protocol: found 'my way'"),
    ],
)
def test_what_is_refused(arguments: list[str], code: int, message: str) -> None:
    before = {path: path.read_bytes() for path in Path("zoo").rglob("*") if path.is_file()}
    result = run("index", "add-score", "zoo", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert {path: path.read_bytes() for path in Path("zoo").rglob("*") if path.is_file()} == before


def test_no_index() -> None:
    result = run("index", "add-score", "absent", "--task", "task1", *SCORE)
    assert result.exit_code == 4
    assert "--base shipped" in result.stderr
    assert not Path("absent").exists()


def test_options_reach_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_task2vec import local_scores

    added, calls = (
        local_scores.add_score("zoo", task="task1", checkpoint="org/mid", score=0.5, protocol="x", n_test=1),
        [],
    )

    def add_score(path: str, **options: Any) -> Any:
        calls.append((path, options))
        return added

    stub(monkeypatch, "local_scores", add_score=add_score)
    monkeypatch.setattr("hf_task2vec.local_scores", __import__("sys").modules["hf_task2vec.local_scores"])
    options = ["--task", "t", *SCORE, "--split", "s", "--n-train", "7", "--metric", "auc", "--source", "lab"]
    options += ["--license", "mit", "--name", "n", "--base", "b", "--replace", "--look-up", "--token", "hf_x"]
    assert run("index", "add-score", "out", *options, "-q").exit_code == 0
    assert calls == [
        (
            "out",
            {
                "task": "t", "checkpoint": "org/small", "score": 0.93, "protocol": "full_finetune", "n_test": 200,
                "split": "s", "n_train": 7, "metric": "auc", "source": "lab", "license": "mit", "name": "n",
                "base": "b", "replace": True, "look_up": True, "token": "hf_x",
            },
        )
    ]  # fmt: skip


def test_help_shows_the_example() -> None:
    text = run("index", "add-score", "--help").stdout
    assert "hf-task2vec embed ./photos -o photos-embedding\n" in text
    assert "--base shipped --task photos-embedding \\\n" in text


@pytest.mark.slow
def test_the_next_selection_uses_it(tmp_path: Path) -> None:
    """With the shipped index and real images: up goes what was measured to be better than predicted."""
    from hf_task2vec.task import Task

    digits = Task.from_dataset("sklearn:digits", max_samples=60)
    for i, label in enumerate(digits.labels):
        (tmp_path / "photos" / f"digit {label}").mkdir(parents=True, exist_ok=True)
        digits.images[i].save(tmp_path / "photos" / f"digit {label}" / f"{i}.png")
    chosen, other = "timm/resnet18.a1_in1k", "timm/mobilenetv3_small_100.lamb_in1k"

    def select(*options: str) -> dict[str, float]:
        result = run("select", "photos", "--top-k", "2000", "--json", *options)
        return {c["hub_id"]: c["score"] for c in json.loads(result.stdout)["candidates"]}

    assert run("embed", "photos", "-o", "embedding").exit_code == 0
    before = select()
    measured = ("--task", "embedding", "--protocol", "linear_probe_loo", "--n-test", "60")
    result = run(
        *("index", "add-score", "mine", "--base", "shipped", "--checkpoint", chosen, "--score", "0.99"), *measured, "-q"
    )
    assert result.exit_code == 0, result.stderr
    after = select("--index", "mine")
    assert after[chosen] > before[chosen]
    assert after[chosen] - after[other] > before[chosen] - before[other]
    assert abs(after[other] - before[other]) < 0.05
