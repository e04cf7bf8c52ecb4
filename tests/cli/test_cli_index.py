"""`hf-task2vec index build` and `index add-score` as a user types them, and `--index` with the loopback Hub."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_task2vec.metric import RankingMetric
from hf_task2vec.zoo.index import ZooIndex, default_index_path
from tests.support.architectures import files_of, save_timm
from tests.support.cli_stub import RANKING, run, stub
from tests.support.hub import HubServer
from tests.support.pictures import TEST, TRAIN, parquet
from tests.support.synthetic import dataset, embedding, measured_zoo, zoo


@pytest.fixture(autouse=True)
def _in_an_own_folder(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not logging.getLogger("hf_task2vec").handlers


@pytest.fixture
def filled(hub: HubServer, tmp_path: Path) -> HubServer:
    """Two datasets and two checkpoints on the Hub, and one repository that is none."""
    for i in range(2):
        hub.create_dataset(
            f"org/data{i}", {TRAIN: parquet(dataset(24, seed=i)), TEST: parquet(dataset(12, seed=i + 5))}
        )
    with torch.random.fork_rng():
        for i in range(2):
            torch.manual_seed(i)
            save_timm(tmp_path / f"net{i}", "test_resnet")
            hub.create_model(f"org/net{i}", files_of(tmp_path / f"net{i}"))
    hub.create_model("org/none", {"config.json": b"{}"})
    return hub


ARGUMENTS = ("--tasks", "org/data0,org/data1", "--device", "cpu", "--probe", "net0", "--cache", "cells")


def test_build_then_select(filled: HubServer) -> None:
    result = run(
        "index", "build", "out", *ARGUMENTS, "--checkpoints", "org/net0", "--checkpoints", "org/net1", "--json"
    )
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["counts"] == {"checkpoints": 2, "tasks": 2, "scores": 4, "sources": 1}
    assert (document["path"], document["done"], document["failed"]) == ("out", 6, 0)  # four measured, two embedded
    assert json.loads(run("index", "info", "out", "--json").stdout)["scored_checkpoints"] == 2
    assert run("index", "validate", "out").exit_code == 0
    ranking = run("select", "org/data0", "--index", "out", "--probe", "net0", "--device", "cpu", "-q")
    assert sorted(ranking.stdout.split()) == ["org/net0", "org/net1"], ranking.stderr

    again = run("index", "build", "out", *ARGUMENTS, "--checkpoints", "org/net0,org/net1", "-q")
    assert (again.exit_code, again.stdout) == (0, "out\n")


def test_some_that_fail(filled: HubServer, tmp_path: Path) -> None:
    (tmp_path / "nets.txt").write_text("org/net0\norg/none  # no network\norg/net1\n")
    result = run("index", "build", "out", *ARGUMENTS, "--no-embed", "--checkpoints", "nets.txt")
    assert result.exit_code == 7
    assert "error: 2 cells failed: org/none on org/data" not in result.stderr  # tasks go by their names in the index
    assert "error: 2 cells failed: org/none on data0: config.json of 'org/none' is neither" in result.stderr
    assert "; all are in cells/cells.csv" in result.stderr
    assert [line.split("\t") for line in result.stdout.splitlines()][:4] == [
        ["path", "out"], ["cells_file", "cells/cells.csv"], ["done", "4"], ["failed", "2"],
    ]  # fmt: skip
    alone = run("index", "build", "other", *ARGUMENTS, "--no-embed", "--checkpoints", "org/none")
    assert (alone.exit_code, alone.stdout) == (4, "")
    assert "config.json of 'org/none' is neither" in alone.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Missing option '--tasks'"),
        (["--tasks", "org/data0"], 2, "Missing option '--checkpoints'"),
        (["--tasks", "x/y", "--checkpoints", "x/y", "--gpus-per-cell", "0.5"], 2, "go with --ray-address"),
        (["--tasks", "x/y", "--checkpoints", "x/y", "--max-samples", "1"], 2, "--max-samples"),
        (["--tasks", "x/y", "--checkpoints", "x/y", "--max-samples", "auto"], 2, "--max-samples"),
        (["--tasks", "org/absent", "--checkpoints", "org/net0"], 3, "org/absent"),
        (["--tasks", "org/data0", "--checkpoints", "org/absent"], 4, "No Hub repository 'org/absent'"),
        (["--tasks", "org/data0", "--checkpoints", "org/net0", "--base", "."], 4, "is no zoo index"),
    ],
)
def test_what_cannot_be(filled: HubServer, arguments: list[str], code: int, message: str) -> None:
    result = run("index", "build", "out", "--no-embed", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr


# -------------------------------------------------------------------------------------------------------- add-score

SCORE = ("--checkpoint", "org/small", "--score", "0.93", "--protocol", "full_finetune", "--n-test", "200")


@pytest.fixture
def small() -> None:
    """A small index and an embedding in the current folder."""
    zoo().save("zoo")
    embedding(9, task={"dataset": "Photos"}).save("photos-embedding")


def test_add_validate_add_again(small: None) -> None:
    result = run("index", "add-score", "mine", "--base", "zoo", "--task", "photos-embedding", *SCORE, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["path"] == "mine"
    assert document["new"] == ["index", "task", "embedding", "source"]
    assert document["score"]["task"] == "photos"
    assert (document["score"]["score"], document["score"]["n_test"]) == (0.93, 200)
    assert "moves no ranking yet" in document["notes"][0]
    again = run("index", "add-score", "mine", "--task", "photos", *SCORE)
    assert (again.exit_code, again.stdout) == (4, "")
    assert "mine already holds 0.93 of org/small on 'photos'" in again.stderr
    assert "--replace" in again.stderr
    replaced = run("index", "add-score", "mine", "--task", "photos", *SCORE, "--score", "0.9", "--replace", "-q")
    assert (replaced.exit_code, replaced.stdout, replaced.stderr) == (0, "mine\n", "")
    assert [row.score for row in ZooIndex.load("mine").rows["scores"] if row.source == "local"] == [0.9]


def test_score_for_a_reader(small: None) -> None:
    result = run("index", "add-score", "zoo", "--task", "task1", *SCORE)
    rows = dict(line.split("\t") for line in result.stdout.splitlines())
    assert rows["score.checkpoint"] == "org/small"
    assert rows["comparable"] == "1"
    assert rows["notes"].startswith("alone in its group")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--task", "task1"], 2, "Missing option"),
        (["--task", "task1", *SCORE, "--score", "93"], 4, "is it in per cent? Then give 0.93"),
        (["--task", "task1", *SCORE, "--score", "much"], 2, "'much' is not a valid float"),
        (["--task", "task1", *SCORE, "--n-test", "0"], 4, "--n-test 0 must be at least 1"),
        (["--task", "tusk1", *SCORE], 4, "did you mean 'task1'"),
        (["--task", "task1", *SCORE, "--checkpoint", "org/smal"], 4, "did you mean 'org/small'"),
        (["--task", "task1", *SCORE, "--metric", "loss"], 4, "column metric: found 'loss'"),
        (["--task", "task1", *SCORE, "--protocol", "my way"], 4, "column protocol: found 'my way'"),
    ],
)
def test_scores_that_are_refused(small: None, arguments: list[str], code: int, message: str) -> None:
    before = {path: path.read_bytes() for path in Path("zoo").rglob("*") if path.is_file()}
    result = run("index", "add-score", "zoo", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert {path: path.read_bytes() for path in Path("zoo").rglob("*") if path.is_file()} == before


def test_score_without_an_index(small: None) -> None:
    result = run("index", "add-score", "absent", "--task", "task1", *SCORE)
    assert (result.exit_code, "--base shipped" in result.stderr, Path("absent").exists()) == (4, True, False)


@pytest.mark.slow
def test_the_next_selection_uses_it() -> None:
    """With the shipped index and real images: up goes what was measured to be better than predicted."""
    dataset = ("sklearn:digits", "--max-samples", "60")
    chosen, other = "timm/resnet18.a1_in1k", "timm/mobilenetv3_small_100.lamb_in1k"

    def select(*options: str) -> dict[str, float]:
        result = run("select", *dataset, "--top-k", "2000", "--json", *options)
        return {c["hub_id"]: c["score"] for c in json.loads(result.stdout)["candidates"]}

    assert run("embed", *dataset, "-o", "embedding").exit_code == 0
    before = select()
    measured = ("--task", "embedding", "--protocol", "linear_probe_loo", "--n-test", "60")
    place = ("mine", "--base", "shipped", "--checkpoint", chosen, "--score", "0.99")
    assert run("index", "add-score", *place, *measured).exit_code == 0
    after = select("--index", "mine")
    assert after[chosen] > before[chosen]
    assert after[chosen] - after[other] > before[chosen] - before[other]
    assert abs(after[other] - before[other]) < 0.05


# ------------------------------------------------------------------------------------------------ an index on the Hub


@pytest.fixture
def shared(hub: HubServer) -> HubServer:
    """An index on the Hub, two commits of it."""
    zoo().push_to_hub("org/index", token=hub.tokens.write)
    hub.forget_requests()
    return hub


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that `select_backbone` was given."""
    folders: list[Path] = []

    def select_backbone(dataset: str, *, index: Any, **options: Any) -> Any:
        folders.append(Path(index))
        return RANKING

    stub(monkeypatch, "selection", select_backbone=select_backbone)
    return folders


def test_index_of_the_hub(shared: HubServer, chosen: list[Path]) -> None:
    assert run("select", "x", "--index", "org/index").exit_code == 0
    assert (chosen[0] / "manifest.json").is_file()
    tasks = sorted(zoo().embeddings.names)[:2]
    expected = run("distance", *tasks, "--index", str(chosen[0]), "--json")
    found = run("distance", *tasks, "--index", "org/index", "--json")
    assert json.loads(found.stdout) == json.loads(expected.stdout)


def test_revision(shared: HubServer, chosen: list[Path]) -> None:
    assert run("select", "x", "--index", "org/index@main").exit_code == 0
    result = run("select", "x", "--index", "org/index@v9")
    assert result.exit_code == 5
    assert "v9" in result.stderr


def test_a_folder_of_that_name_comes_first(shared: HubServer, chosen: list[Path]) -> None:
    zoo().save("org/index")
    assert run("select", "x", "--index", "org/index").exit_code == 0
    assert chosen == [Path("org/index")]
    assert shared.requests == []


@pytest.mark.parametrize(
    ("place", "code", "messages"),
    [
        ("nowhere", 4, ["there is no folder 'nowhere' here ({})", "named org/name or org/name@revision"]),
        ("./org/nowhere", 4, ["there is no folder './org/nowhere' here"]),
        ("org/nowhere", 5, ["org/nowhere", "there is no folder 'org/nowhere' here ({})"]),
    ],
)
def test_neither(
    shared: HubServer, chosen: list[Path], tmp_path: Path, place: str, code: int, messages: list[str]
) -> None:
    for arguments in (["select", "x"], ["distance", "mnist", "cifar10"]):
        result = run(*arguments, "--index", place)
        assert (result.exit_code, result.stdout, chosen) == (code, "", [])
        for message in messages:
            assert message.format(tmp_path) in result.stderr


def test_train_learns_from_the_scores_of_an_index_of_ones_own() -> None:
    measured_zoo().save("mine")
    result = run("index", "train", "mine", "--steps", "3", "--json")
    assert result.exit_code == 0, result.stderr
    trained = ZooIndex.load("mine")
    assert {"metric.json", "metric.safetensors"} <= set(trained.attachments)
    assert json.loads(result.stdout)["n_scores"] == len(RankingMetric.from_index(trained).y)
    assert RankingMetric.from_index(trained).solved is not None
    missing = run("index", "train", "none")
    assert missing.exit_code == 4
    assert "there is no index at none" in missing.stderr


def test_the_shipped_index_is_not_trained() -> None:
    result = run("index", "train", str(default_index_path()))
    assert result.exit_code == 4
    assert "comes with the package" in result.stderr
