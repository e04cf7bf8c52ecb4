"""Ctrl-C: what is kept, what is said, and that the same command goes on where it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

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
    assert all(name.startswith("embeddings/") for name in files(tmp_path / "cache"))
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
def test_push_and_pull(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding(0).save(tmp_path / "mine")
    monkeypatch.setenv("HF_TOKEN", hub.tokens.write)
    hub.inject(method="POST", pattern="/commit/", delay=5)

    def interrupt_when(pattern: str, method: str, process: subprocess.Popen[str]) -> None:
        while process.poll() is None and not hub.requested(pattern, method):
            threading.Event().wait(0.05)
        process.send_signal(signal.SIGINT)

    def stopped(*arguments: str, pattern: str, method: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "hf_task2vec.cli", *arguments]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            interrupt_when(pattern, method, process)
            assert process.stderr is not None
            return process.wait(), process.stderr.read()

    push = ("push", str(tmp_path / "mine"), "org/mine")
    code, said = stopped(*push, pattern="/commit/", method="POST")
    assert (code, said) == (130, f"{SAID}\n")
    done = subprocess.run(
        [sys.executable, "-m", "hf_task2vec.cli", *push, "-q"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    hub.inject(method="GET", pattern="resolve/.*safetensors", delay=5, after=10)
    hub.forget_requests()
    output = tmp_path / "pulled.safetensors"
    pull = ("pull", "org/mine", "-o", str(output))
    code, said = stopped(*pull, pattern="resolve/.*safetensors", method="GET")
    assert (code, said) == (130, f"{SAID}\n")
    assert not output.exists()
    done = subprocess.run(
        [sys.executable, "-m", "hf_task2vec.cli", *pull, "-q"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{output}\n"), done.stderr
