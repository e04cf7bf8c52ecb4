"""Ctrl-C: what is kept, what is said, and that the same command goes on where it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub import HubServer
from safetensors.numpy import save_file
from synthetic import dataset, embedding, tiny_probe

from hf_task2vec import embed as embed_module
from hf_task2vec.cache import cached_embedding
from hf_task2vec.embed import embed_task
from hf_task2vec.task import Task

KEPT = "downloads and finished steps are kept; started again, the same command goes on where it was"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(tmp_path / "cache"))


# ------------------------------------------------------------------------------------- what is kept of an embedding


def interrupted(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any], *, part: int) -> None:
    """Make the `part`-th Fisher pass end by Ctrl-C."""
    original, parts = embed_module.diagonal_fisher, [0]

    def diagonal_fisher(*args: Any, **options: Any) -> Any:
        parts[0] += 1
        if parts[0] == part:
            raise KeyboardInterrupt
        return original(*args, **options)

    with monkeypatch.context() as context:
        context.setattr(embed_module, "diagonal_fisher", diagonal_fisher)
        with pytest.raises(KeyboardInterrupt):
            call()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the images that go through the features and the Fisher pass."""
    counts = {"features": 0, "Fisher": 0}
    read = embed_module.DepthReader.read
    fisher = embed_module.diagonal_fisher

    def counted_read(self: Any, images: Any) -> Any:
        counts["features"] += len(images)
        return read(self, images)

    def counted_fisher(*args: Any, **options: Any) -> Any:
        sums = fisher(*args, **options)
        counts["Fisher"] += int(sums.counts.sum())
        return sums

    monkeypatch.setattr(embed_module.DepthReader, "read", counted_read)
    monkeypatch.setattr(embed_module, "diagonal_fisher", counted_fisher)
    return counts


@pytest.mark.parametrize(("part", "tolerance", "left"), [(1, None, 300), (2, None, 44), (3, 1e-9, 300 - 96)])
def test_an_embedding_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, part: int, tolerance: float | None, left: int, seen: dict[str, int]
) -> None:
    task, probe = Task.from_dataset(dataset(300), max_samples=None), tiny_probe()
    whole = embed_task(task, probe, noise_tolerance=tolerance)
    keep = tmp_path / "unfinished" / "one.safetensors"
    options = {"noise_tolerance": tolerance, "keep": keep}
    interrupted(monkeypatch, lambda: embed_task(task, probe, **options), part=part)
    assert keep.is_file()
    seen.update(dict.fromkeys(seen, 0))
    again = embed_task(task, probe, **options)
    assert seen == {"features": 0, "Fisher": left}
    assert again.to_bytes() == whole.to_bytes(), "an interruption changes nothing"
    assert not keep.exists()


@pytest.mark.parametrize(
    "kept",
    [
        {"features": np.zeros((5, 8)), "widths": np.array([8])},
        {"features": np.zeros((24, 8)), "widths": np.array([8]), "sums": np.zeros((2, 3)), "counts": np.zeros(2)},
        {"other": np.zeros(3)},
    ],
    ids=["rows", "filters", "names"],
)
def test_what_does_not_fit_is_made_again(
    kept: dict[str, Any], tmp_path: Path, seen: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    task, probe, keep = Task.from_dataset(dataset(24)), tiny_probe(), tmp_path / "one.safetensors"
    save_file(kept, keep)
    made = embed_task(task, probe, keep=keep)
    assert seen == {"features": 24, "Fisher": 24}
    assert "does not fit and is made again" in caplog.text
    assert made.to_bytes() == embed_task(task, probe).to_bytes()


def test_an_embedding_that_was_steady_already_takes_no_more_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seen: dict[str, int]
) -> None:
    """Interrupted after the sums that were good enough had been kept, and before anything was made of them."""
    task, probe = Task.from_dataset(dataset(300), max_samples=None), tiny_probe()
    whole, keep = embed_task(task, probe, noise_tolerance=0.9), tmp_path / "one.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr(embed_module, "noise_of", lambda sums: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            embed_task(task, probe, noise_tolerance=0.9, keep=keep)
    seen.update(dict.fromkeys(seen, 0))
    assert embed_task(task, probe, noise_tolerance=0.9, keep=keep).to_bytes() == whole.to_bytes()
    assert seen == {"features": 0, "Fisher": 0}


def test_the_cache_keeps_what_is_unfinished(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seen: dict[str, int]
) -> None:
    task, probe = Task.from_dataset(dataset(24)), tiny_probe()
    interrupted(monkeypatch, lambda: cached_embedding(task, probe, cache=False), part=1)
    assert not (tmp_path / "cache").exists(), "--no-cache keeps nothing"
    interrupted(monkeypatch, lambda: cached_embedding(task, probe), part=1)
    assert len(list((tmp_path / "cache" / "unfinished").iterdir())) == 1
    # Another seed is another embedding, and takes nothing from this one.
    seen.update(dict.fromkeys(seen, 0))
    cached_embedding(task, probe, seed=1)
    assert seen["features"] == 24
    cached_embedding(task, probe)
    assert seen["features"] == 24
    assert list((tmp_path / "cache" / "unfinished").iterdir()) == []


def test_what_is_kept_and_damaged_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task, probe = Task.from_dataset(dataset(24)), tiny_probe()
    keep = tmp_path / "one.safetensors"
    keep.write_bytes(b"no tensors")
    found = embed_task(task, probe, keep=keep)
    assert "what was kept of an interrupted embedding is not usable" in caplog.text
    np.testing.assert_array_equal(found.values, embed_task(task, probe).values)
    assert not keep.exists()


def test_nowhere_to_keep_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    embed_task(Task.from_dataset(dataset(24)), tiny_probe(), keep=tmp_path / "file" / "one.safetensors")
    assert "nothing of the work can be kept" in caplog.text


# ------------------------------------------------------------------------------------------- a signal to a process


class Command:
    """The command line as a process, interrupted when the `times`-th line of its log says so."""

    def __init__(self, *arguments: str | Path, stop: str | None = None, times: int = 1) -> None:
        command = [sys.executable, "-m", "hf_task2vec.cli", *map(str, arguments), "-vv"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **streams) as process:  # type: ignore[call-overload]
            self.lines: list[str] = []
            for line in process.stderr:
                self.lines.append(line.rstrip("\n"))
                if stop is not None and stop in line:
                    times -= 1
                    if times == 0:
                        process.send_signal(signal.SIGINT)
            self.stdout = process.stdout.read()
        self.code = process.returncode
        self.log = "\n".join(self.lines)
        assert stop is None or times <= 0, f"it never came to {stop!r}: {self.log}"


def check_interrupted(command: Command, stage: str, kept: str = KEPT) -> None:
    assert (command.code, command.stdout) == (130, ""), command.log
    assert command.lines[-1] == f"interrupted ({stage}): {kept}"
    assert "Traceback" not in command.log


def files(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.slow
@pytest.mark.timeout(900)  # eight processes that import PyTorch
def test_select_and_embed(tmp_path: Path) -> None:
    arguments = ("sklearn:digits", "--max-samples", "64", "--offline", "--device", "cpu")
    for stop, stage in (
        *(("reading the dataset", "reading the dataset"), ("loading the probe", "loading the probe")),
        *(("embed: features", "features"), ("embed: Fisher", "Fisher")),
    ):
        check_interrupted(Command("select", *arguments, "--json", stop=stop), stage)
        kept = list(files(tmp_path / "cache")) if (tmp_path / "cache").exists() else []
        assert [name.partition("/")[0] for name in kept] == (["unfinished"] if stage == "Fisher" else [])
    # The same command goes on: no image goes through the network for its features again.
    done = Command("select", *arguments, "--json")
    assert "an interrupted embedding goes on" in done.log
    assert len(json.loads(done.stdout)["candidates"]) == 10
    assert all(name.startswith("embeddings/") for name in files(tmp_path / "cache"))
    # Interrupted after the embedding: the next start does not need the network at all.
    check_interrupted(Command("select", *arguments, stop="ranking 1"), "ranking")
    assert "loading the probe" not in Command("select", *arguments).log

    output = tmp_path / "embedding"
    embedding_of = ("embed", *arguments, "-o", output)
    check_interrupted(Command(*embedding_of, stop="embed: Fisher"), "Fisher")
    assert not output.exists(), "nothing half-written"
    assert "an interrupted embedding goes on" in Command(*embedding_of).log
    assert sorted(files(output)) == ["embedding.json", "embedding.safetensors"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_index_build(hub: HubServer, tmp_path: Path) -> None:
    from architectures import files_of, save_timm
    from test_task import TEST, TRAIN, parquet

    hub.create_dataset("org/data", {TRAIN: parquet(dataset(24)), TEST: parquet(dataset(12, seed=5))})
    for name in ("a", "b"):
        save_timm(tmp_path / name, "test_resnet")
        hub.create_model(f"org/{name}", files_of(tmp_path / name))
    out, cells = tmp_path / "out", tmp_path / "cells"
    arguments = ("index", "build", out, "--tasks", "org/data", "--checkpoints", "org/a,org/b", "--no-embed",
                 "--cache", cells, "--device", "cpu")  # fmt: skip
    stopped = Command(*arguments, stop="linear probes", times=2)
    check_interrupted(
        stopped, "linear probes", KEPT.replace("downloads and finished steps are", "every finished cell is")
    )
    assert not out.exists()
    done = Command(*arguments, "--json")
    assert json.loads(done.stdout)["done"] == 2
    assert "2 cells: 1 are measured, 0 failed, 1 are left" in done.log, "the first was kept"
    again = Command(*arguments, "--json")
    assert "2 cells: 2 are measured, 0 failed; nothing is left to do" in again.log


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
    go_on = "started again, the same command goes on where it was"
    assert (code, said) == (130, f"interrupted: a push is one commit, there as a whole or not at all; {go_on}\n")
    done = subprocess.run(
        [sys.executable, "-m", "hf_task2vec.cli", *push, "-q"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    hub.inject(method="GET", pattern="resolve/.*safetensors", delay=5, after=10)
    hub.forget_requests()
    output = tmp_path / "pulled.safetensors"
    pull = ("pull", "org/mine", "-o", str(output))
    code, said = stopped(*pull, pattern="resolve/.*safetensors", method="GET")
    assert code == 130
    assert said == f"interrupted: finished downloads are kept, and nothing half-written; {go_on}\n"
    assert not output.exists()
    done = subprocess.run(
        [sys.executable, "-m", "hf_task2vec.cli", *pull, "-q"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{output}\n"), done.stderr
