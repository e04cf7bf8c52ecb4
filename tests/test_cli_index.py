"""`hf-task2vec index build` as a user types it, with the loopback Hub."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from architectures import files_of, save_timm
from cli_stub import run
from hub import HubServer
from synthetic import dataset
from test_task import TEST, TRAIN, parquet


@pytest.fixture(autouse=True)
def _in_an_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(tmp_path / "cache"))
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
    assert document["counts"] == {"checkpoints": 2, "tasks": 2, "scores": 8, "sources": 1}
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
    assert [line.split() for line in result.stdout.splitlines()][:4] == [
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


def test_help_names_the_exit_code() -> None:
    text = run("index", "build", "--help").stdout
    assert "7    index build: some cells failed; the index holds the others\n" in text


def test_only_click_is_needed_to_show_the_help() -> None:
    code = (
        "import sys; from hf_task2vec.cli import cli; cli(['index', 'build', '-h'], standalone_mode=False);"
        "print(sorted({'torch', 'numpy', 'pydantic', 'ray', 'tqdm'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
