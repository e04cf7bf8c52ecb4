"""`--index`: a folder, or a repository of the Hub, for every command that has it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest
from cli_stub import run, stub
from hub import HubServer
from synthetic import zoo
from test_cli import RANKING

from hf_task2vec.cli.index_place import IndexPlace


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
    tasks = sorted(zoo().embeddings().tasks)[:2]
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


def test_nothing_is_fetched_before_it_is_needed(shared: HubServer) -> None:
    place = IndexPlace("org/index", click.Context(click.Command("x")))
    assert str(place) == "org/index"
    assert shared.requests == []
    first = os.fspath(place)
    asked = len(shared.requests)
    assert asked > 0
    assert os.fspath(place) == first
    assert len(shared.requests) == asked, "once"
