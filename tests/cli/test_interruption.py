"""Ctrl-C: what is kept, what is said, and that the same command goes on where it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import HubServer
from tests.support.synthetic import dataset, embedding

SAID = "interrupted: finished downloads and measurements are kept, and nothing is half-written"


pytestmark = pytest.mark.usefixtures("own_cache")


class Command:
    """The command line as a process, interrupted when its log says `stop`."""

    def __init__(self, *arguments: str | Path, stop: str | None = None) -> None:
        command = [sys.executable, "-m", "hf_task2vec.cli", *map(str, arguments), "-vv"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **streams) as process:  # type: ignore[call-overload]
            self.lines: list[str] = []
            for line in process.stderr:
                self.lines.append(line.rstrip("\n"))
                if stop is not None and stop in line:
                    process.send_signal(signal.SIGINT)
            self.stdout = process.stdout.read()
        self.code = process.returncode
        self.log = "\n".join(self.lines)
        assert stop is None or stop in self.log, f"it never came to {stop!r}: {self.log}"


def check_interrupted(command: Command) -> None:
    assert (command.code, command.stdout) == (130, ""), command.log
    assert command.lines[-1] == SAID
    assert "Traceback" not in command.log


def files(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.slow
@pytest.mark.timeout(900)  # eight processes that import PyTorch
def test_select_and_embed(tmp_path: Path) -> None:
    arguments = ("sklearn:digits", "--max-samples", "64", "--offline", "--device", "cpu")
    for stop in ("reading the dataset", "loading the probe", "embedding sklearn:digits", "describing the task"):
        check_interrupted(Command("select", *arguments, "--json", stop=stop))
        assert not (tmp_path / "cache").exists() or list(files(tmp_path / "cache")) == []
    done = Command("select", *arguments, "--json")
    assert len(json.loads(done.stdout)["candidates"]) == 10
    assert {name.partition("/")[0] for name in files(tmp_path / "cache")} == {"embeddings", "metric"}
    # Interrupted after the embedding: the next start does not need the network at all.
    check_interrupted(Command("select", *arguments, stop="found in the cache"))
    assert "loading the probe" not in Command("select", *arguments).log

    output = tmp_path / "embedding"
    embedding_of = ("embed", *arguments, "-o", output)
    check_interrupted(Command(*embedding_of, stop="describing the task"))
    assert not output.exists(), "nothing half-written"
    assert Command(*embedding_of).code == 0
    assert output.is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_index_build(hub: HubServer, tmp_path: Path) -> None:
    from tests.support.architectures import files_of, save_timm
    from tests.support.pictures import TEST, TRAIN, parquet

    hub.create_dataset("org/data", {TRAIN: parquet(dataset(24)), TEST: parquet(dataset(12, seed=5))})
    for name in ("a", "b"):
        save_timm(tmp_path / name, "test_resnet")
        hub.create_model(f"org/{name}", files_of(tmp_path / name))
    out, cells = tmp_path / "out", tmp_path / "cells"
    arguments = ("index", "build", out, "--tasks", "org/data", "--checkpoints", "org/a,org/b", "--no-embed",
                 "--cache", cells, "--device", "cpu")  # fmt: skip
    check_interrupted(Command(*arguments, stop="org/b: 96 features"))
    assert not out.exists()
    done = Command(*arguments, "--json")
    assert json.loads(done.stdout)["done"] == 2
    assert "org/a: 96 features" not in done.log, "the first was kept"
    assert "org/b: 96 features" in done.log
    assert "96 features" not in Command(*arguments, "--json").log


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("arguments", "method", "pattern", "fault"),
    [
        (("push", "mine", "org/mine"), "POST", "/commit/", {"delay": 5}),
        (("pull", "org/shared", "-o", "pulled"), "GET", "resolve/.*safetensors", {"delay": 600, "after": 10}),
    ],
)
def test_push_and_pull(
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    method: str,
    pattern: str,
    fault: dict[str, Any],
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.tokens.write)
    embedding(0).save(tmp_path / "mine")
    embedding(0).push_to_hub("org/shared")
    hub.forget_requests()
    hub.inject(method=method, pattern=pattern, **fault)
    command = [sys.executable, "-m", "hf_task2vec.cli", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        while process.poll() is None and not hub.requested(pattern, method):
            threading.Event().wait(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert (process.stderr.read().splitlines()[1:], process.wait()) == ([SAID], 130)  # after the stage
    assert not (tmp_path / "pulled").exists()
    done = subprocess.run([*command, "-q"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
