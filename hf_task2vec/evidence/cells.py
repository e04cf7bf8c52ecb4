"""Cells of a build: one checkpoint measured on one task, or one task embedded, and the files that keep them."""

from __future__ import annotations

import datetime
import json
import logging
import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.embedding import Computing, embed_task, library_versions
from hf_task2vec.errors import LabelError, ProbeError, Task2VecError
from hf_task2vec.evidence.inputs import Checkpoint, PinnedTask
from hf_task2vec.files import atomic_path, canonical_json, sha256_bytes, write_json
from hf_task2vec.probes import Probe, Score, extract_features, finite, ridge_leave_one_out
from hf_task2vec.tasks import Sampling, Task

logger = logging.getLogger(__name__)

FORMAT = 2
"""Part of every key: raised when the same cell would give another result, or its files are written otherwise."""
#: Errors that say nothing about the cell itself: it is tried again at the next start.
_TRANSIENT = ("HubError", "HubUnavailableError", "ConnectionError", "TimeoutError")
#: Weights that a worker keeps loaded for the next tasks.
_PROBE_BYTES = 4 << 30
_TEST_SPLITS = ("test", "validation", "valid", "val", "dev", "eval")

Result: TypeAlias = "tuple[dict[str, Any], bytes | None]"
"""A cell's JSON document, and a safetensors file: which examples were classified rightly, or the embedding."""


@dataclass(frozen=True)
class Cell:
    """One unit of work: measure a checkpoint on a task, or embed a task with a probe."""

    kind: Literal["measure", "embed"]
    task: PinnedTask
    checkpoint: Checkpoint
    config: Mapping[str, Any]
    """JSON-able settings that change the result: ``max_samples``, ``seed``, and whether the features are kept."""

    @cached_property
    def key(self) -> str:
        """Name of the cell's files: changes with the task's content, the weights, and the settings."""
        pinned = {"task": self.task.identity, "checkpoint": self.checkpoint.identity}
        return _key({"format": FORMAT, "kind": self.kind, "config": self.config, **pinned})

    @property
    def failure(self) -> Exception | None:
        """Why there is nothing to work on, if that is known beforehand."""
        return self.checkpoint.failure or self.task.failure

    def __str__(self) -> str:
        return f"{self.checkpoint.name} on {self.task.name}"


def failed(cell: Cell, error: BaseException, **more: Any) -> Result:
    """Return the result of a cell that cannot be worked on."""
    name = type(error).__name__
    return _document(cell, status="failed", error=name, reason=" ".join(str(error).split()) or name, **more), None


def _document(cell: Cell, **more: Any) -> dict[str, Any]:
    names = {"task": cell.task.name, "checkpoint": cell.checkpoint.name}
    return {"key": cell.key, "kind": cell.kind, **names, "config": dict(cell.config), **more}


def _key(parts: Mapping[str, Any]) -> str:
    return sha256_bytes(canonical_json(dict(parts)))[:40]


class CellStore:
    """The files of finished cells; each appears whole or not at all, and a cell's JSON document last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def document(self, cell: Cell) -> dict[str, Any] | None:
        """Return a cell's document, or None if there is still work to do."""
        if cell.failure is not None:
            return failed(cell, cell.failure)[0]
        path = self._path(cell, ".json")
        try:
            document: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            logger.warning("%s is not readable; the cell is measured again", path)
            return None
        # The names are not part of the key: a task may have been renamed since.
        return document | {"task": cell.task.name, "checkpoint": cell.checkpoint.name}

    def is_pending(self, cell: Cell, *, retry_failed: bool = False) -> bool:
        """Say whether a cell needs work: it is not done, and has not failed for a reason of its own."""
        document = self.document(cell)
        if document is None or cell.failure is not None:
            return document is None
        return document["status"] == "failed" and (retry_failed or document["error"] in _TRANSIENT)

    def write(self, cell: Cell, result: Result) -> None:
        """Keep a result."""
        document, payload = result
        if payload is not None:
            with atomic_path(self.payload_path(cell)) as temporary:
                temporary.write_bytes(payload)
        write_json(self._path(cell, ".json"), document)

    def payload_path(self, cell: Cell) -> Path:
        """Return the path of a done cell's safetensors file."""
        return self._path(cell, ".safetensors")

    def _path(self, cell: Cell, suffix: str) -> Path:
        # Two digits in between: file systems dislike folders of a million files.
        return self.folder / "cells" / cell.key[:2] / f"{cell.key}{suffix}"


class Worker:
    """Works on cells one after another; keeps the sample last drawn, and as many probes as fit in a budget."""

    def __init__(self, computing: Computing, probe_bytes: int = _PROBE_BYTES) -> None:
        from hf_task2vec.probes import default_device

        self._device = computing.device or default_device()
        self._batch_size, self._token = computing.batch_size, computing.token
        self._probes = _Recent(probe_bytes, _size)
        self._samples = _Recent(1, lambda sample: 1)

    def run(self, cell: Cell) -> Result:
        """Work on one cell; whatever goes wrong with it is its result."""
        seconds: dict[str, float] = {}
        circumstances = {
            "device": self._device,
            "host": platform.node(),
            "versions": library_versions(),
            "measured": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "seconds": seconds,
        }
        try:
            with _timed(seconds, "draw"):
                parts = self._samples.get(_key({"task": cell.task.identity, **cell.config}), partial(self._draw, cell))
            with _timed(seconds, "load"):
                probe = self._probes.get(_key(cell.checkpoint.identity), partial(self._load, cell.checkpoint))
            try:
                work = self._embed if cell.kind == "embed" else self._measure
                found, payload = work(cell, probe, parts, seconds)
            except Exception as error:
                self._probes.forget(_key(cell.checkpoint.identity))  # its memory may be what was missing
                if isinstance(error, Task2VecError):
                    raise
                raise ProbeError(
                    f"{probe.name!r} fails on the images of {parts[0].dataset!r} (device {probe.device}): "
                    f"{type(error).__name__}: {error}"
                ) from error
        # A foreign network, decoder or file may raise anything; it ends this cell and no other.
        except Exception as error:
            logger.debug("%s failed", cell, exc_info=True)
            return failed(cell, error, **circumstances)
        return _document(cell, status="done", sample=_describe(parts), **found, **circumstances), payload

    def _draw(self, cell: Cell) -> tuple[Task, ...]:
        max_samples, seed = cell.config["max_samples"], cell.config["seed"]
        return draw_sample(cell.task, max_samples, seed, train_only=cell.kind == "embed", token=self._token)

    def _load(self, checkpoint: Checkpoint) -> Probe:
        return checkpoint.load().to(self._device)

    def _measure(
        self, cell: Cell, probe: Probe, parts: tuple[Task, ...], seconds: dict[str, float]
    ) -> tuple[dict[str, Any], bytes]:
        from safetensors.numpy import save

        labels = joined_labels(parts)
        with _timed(seconds, "extract"):
            x = np.concatenate([extract_features(probe, part, batch_size=self._batch_size) for part in parts])
        with _timed(seconds, "score"):
            correct = ridge_leave_one_out(finite(x), labels)
        score = Score.of_share(float(correct.mean()), len(labels))
        params = sum(parameter.numel() for parameter in probe.module.parameters())
        found = {
            "measurement": {"dim": x.shape[1], "linear": score.value, "linear_se": score.std_error},
            "facts": {**cell.checkpoint.facts, "params_m": params / 1e6 or None, "input_px": probe.input_size[1]},
        }
        kept = {"features": x, "labels": labels} if cell.config.get("keep_features") else {}
        return found, save({"correct": np.packbits(correct), **kept})

    def _embed(
        self, cell: Cell, probe: Probe, parts: tuple[Task, ...], seconds: dict[str, float]
    ) -> tuple[dict[str, Any], bytes]:
        (task,) = parts
        with _timed(seconds, "extract"):
            embedding = embed_task(task, probe, batch_size=self._batch_size, seed=cell.config["seed"])
        return {}, embedding.to_bytes()


class _Recent:
    """What was made last, while its sizes fit in a budget; errors are kept too, and raised again."""

    def __init__(self, budget: int, size: Callable[[Any], int]) -> None:
        self._budget, self._size = budget, size
        self._made: OrderedDict[str, Any] = OrderedDict()
        self._errors: dict[str, Exception] = {}

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        if key in self._errors:
            raise self._errors[key].with_traceback(None)
        if key not in self._made:
            # Room is made afterwards: only then is it known how much is needed.
            try:
                self._made[key] = make()
            except Exception as error:
                self._errors[key] = error
                raise
            while sum(map(self._size, self._made.values())) > self._budget and len(self._made) > 1:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return self._made[key]

    def forget(self, key: str) -> None:
        self._made.pop(key, None)


def draw_sample(
    task: PinnedTask, max_samples: int | None, seed: int, *, train_only: bool, token: str | None
) -> tuple[Task, ...]:
    """Draw at most `max_samples` images of the training split, and as many of the test split if there is one."""
    spec = task.spec
    told = spec.model_dump(include={"name", "image_column", "label_column", "labels_from", "streaming"})
    sampling = Sampling(**told, revision=task.revision, max_samples=max_samples, seed=seed)

    def draw(split: str | None) -> Task:
        drawn = Task.from_dataset(spec.dataset, **vars(replace(sampling, split=split)), token=token)
        if not train_only and drawn.label_kind != "single_label":
            raise LabelError("measuring checkpoints on multi-label tasks is not supported yet; pick one label column")
        return drawn

    train = draw(spec.split)
    if train_only:
        return (train,)
    if spec.test_split is not None:
        return train, draw(spec.test_split)
    for name in (name for name in _TEST_SPLITS if name in train.other_splits):
        try:
            return train, draw(name)
        except LabelError as error:  # many benchmarks publish their test images without labels
            logger.info("split %r of %s is not used: %s", name, spec.dataset, error)
    return (train,)


def joined_labels(parts: tuple[Task, ...]) -> NDArray[np.int64]:
    """Return the labels of all parts in one numbering of the classes: by name, those of the first part first."""
    names = list(dict.fromkeys(name for part in parts for name in part.label_names))
    positions = [np.array([names.index(name) for name in part.label_names], dtype=np.int64) for part in parts]
    return np.concatenate([position[part.labels] for position, part in zip(positions, parts, strict=True)])


def _describe(parts: tuple[Task, ...]) -> dict[str, Any]:
    skipped = [image for part in parts for image in part.skipped]
    sizes = [len(part) for part in parts]
    return {
        "n": sum(sizes),
        "n_train": sizes[0],
        "n_test": sum(sizes[1:]),
        "n_classes": len(np.unique(parts[0].labels if len(parts) == 1 else joined_labels(parts), axis=0)),
        "splits": [part.split for part in parts],
        "revision": parts[0].revision,
        "skipped": len(skipped),
        "skipped_reasons": sorted({image.reason for image in skipped})[:5],
    }


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = round(time.perf_counter() - start, 4)


def _size(probe: Probe) -> int:
    return sum(tensor.nbytes for tensor in (*probe.module.parameters(), *probe.module.buffers()))
