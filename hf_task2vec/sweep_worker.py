"""Do the work of one cell: draw the task, load the checkpoint, extract features once, evaluate them in every way."""

from __future__ import annotations

import datetime
import logging
import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.cells import Cell, CellResult, describe, failed
from hf_task2vec.embed import embed_task, library_versions
from hf_task2vec.errors import ProbeError, Task2VecError
from hf_task2vec.files import canonical_json
from hf_task2vec.sweep_inputs import Checkpoint, Failure
from hf_task2vec.sweep_measure import Sample, evaluate, facts_of
from hf_task2vec.task import Task
from hf_task2vec.transfer import extract_features

if TYPE_CHECKING:
    from hf_task2vec.probe import Probe

logger = logging.getLogger(__name__)

PROBE_BYTES = 4 << 30
"""Weights kept loaded by one worker for the next cells."""

_REMEMBERED_SAMPLES = 2

S = TypeVar("S", Sample, Task)
_Clock: TypeAlias = Callable[[str], AbstractContextManager[None]]


@dataclass
class Worker:
    """Works on cells one after another; keeps the last tasks drawn, and as many probes as fit.

    Parameters
    ----------
    device
        Torch device; None takes a GPU if there is one.
    batch_size
        Images in one pass; None takes what suits the device.
    token
        Hub token for datasets.
    keep_features
        Return the features too.
    probe_bytes
        Weights to keep loaded.
    """

    device: str | None = None
    batch_size: int | None = None
    token: str | None = None
    keep_features: bool = False
    probe_bytes: int = PROBE_BYTES
    _probes: OrderedDict[str, Probe] = field(default_factory=OrderedDict, init=False, repr=False)
    _broken: dict[str, Exception] = field(default_factory=dict, init=False, repr=False)
    _samples: OrderedDict[str, Any] = field(default_factory=OrderedDict, init=False, repr=False)

    def run(self, cell: Cell, features: bytes | None = None) -> CellResult:
        """Work on one cell; whatever goes wrong with it is its result.

        Parameters
        ----------
        cell
            What to do.
        features
            The file of features that were kept from an earlier time.
        """
        seconds: dict[str, float] = {}
        try:
            if cell.failure is not None:
                return failed(cell, cell.failure)
            work = self._embed if cell.kind == "embed" else self._measure
            result = work(cell, features, partial(_timed, seconds))
        # A foreign network, decoder or file may raise anything; it ends this cell and no other.
        except Exception as error:
            logger.debug("%s failed", cell, exc_info=True)
            self._probes.pop(_text(cell.checkpoint.identity), None)  # its memory may be what was missing
            return failed(cell, Failure.of(error), **self._circumstances(seconds))
        result.document.update(self._circumstances(seconds))
        return result

    def _measure(self, cell: Cell, features: bytes | None, clock: _Clock) -> CellResult:
        from safetensors.numpy import load, save

        with clock("draw"):
            sample = self._sample(cell)
        document = describe(cell) | {"status": "done", "sample": sample.describe()}
        kept = load(features) if features is not None else None
        if kept is None:
            with clock("load"):
                probe = self._probe(cell.checkpoint)
            with clock("extract"):
                x = np.concatenate([_extracted(probe, part, self.batch_size) for part in sample.parts])
            document["facts"] = facts_of(cell.checkpoint, probe)
        else:
            x = kept["features"]
            if not np.array_equal(kept["labels"], sample.labels) or int(kept["n_train"][0]) != len(sample.train):
                raise ProbeError("the features kept from an earlier time are of other images; delete their file")
            document["facts"] = dict(cell.checkpoint.facts)
        with clock("score"):
            document["measurement"], correct = evaluate(x, sample.labels)
        tensors = {name: np.packbits(found) for name, found in correct.items()}
        new = {"features": x, "labels": sample.labels, "n_train": np.array([len(sample.train)])}
        return CellResult(document, save(tensors), save(new) if self.keep_features and kept is None else None)

    def _embed(self, cell: Cell, features: bytes | None, clock: _Clock) -> CellResult:
        with clock("draw"):
            task = self._training_sample(cell)
        with clock("load"):
            probe = self._probe(cell.checkpoint)
        with clock("extract"):
            embedding = embed_task(task, probe, batch_size=self.batch_size, seed=cell.config["seed"])
        sample = {"n": len(task), "n_classes": len(np.unique(task.labels, axis=0)), "revision": task.revision}
        document = describe(cell) | {"status": "done", "sample": sample}
        return CellResult(document, embedding.to_bytes())

    def _circumstances(self, seconds: Mapping[str, float]) -> dict[str, Any]:
        return {
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "device": self._device,
            "host": platform.node(),
            "versions": self._versions,
            "measured": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }

    @cached_property
    def _versions(self) -> dict[str, str]:
        return library_versions()

    @cached_property
    def _device(self) -> str:
        from hf_task2vec.devices import default_device

        return self.device if self.device is not None else default_device()

    def _sample(self, cell: Cell) -> Sample:
        config = cell.config
        draw = partial(Sample.draw, cell.task, max_samples=config["max_samples"], seed=config["seed"], token=self.token)
        return self._remembered(cell, draw)

    def _training_sample(self, cell: Cell) -> Task:
        spec, config = cell.task.spec, cell.config
        draw = partial(
            Task.from_dataset,
            spec.dataset,
            name=spec.name,
            split=spec.split,
            revision=cell.task.revision,
            token=self.token,
            image_column=spec.image_column,
            label_column=spec.label_column,
            streaming=spec.streaming,
            max_samples=config["max_samples"],
            seed=config["seed"],
        )
        return self._remembered(cell, draw)

    def _remembered(self, cell: Cell, draw: Callable[[], S]) -> S:
        """Return what was drawn for an earlier cell of the same task, or raise again what was raised."""
        key = _text({"kind": cell.kind, "task": cell.task.identity, "config": cell.config})
        if key not in self._samples:
            while len(self._samples) >= _REMEMBERED_SAMPLES:
                self._samples.popitem(last=False)
            try:
                self._samples[key] = draw()
            except Exception as error:  # noqa: BLE001 (raised below)
                self._samples[key] = error
        found: S | Exception = self._samples[key]
        if isinstance(found, Exception):
            raise found.with_traceback(None)
        return found

    def _probe(self, checkpoint: Checkpoint) -> Probe:
        key = _text(checkpoint.identity)
        if key in self._broken:
            raise self._broken[key].with_traceback(None)
        if key in self._probes:
            self._probes.move_to_end(key)
            return self._probes[key]
        try:
            probe = checkpoint.load().to(self._device)
        except Exception as error:
            self._broken[key] = error
            raise
        self._probes[key] = probe
        while sum(map(_size, self._probes.values())) > self.probe_bytes and len(self._probes) > 1:
            self._probes.popitem(last=False)
        return probe


#: What the timed parts of a cell are called where a user waits for them.
_STAGES = {
    "draw": "drawing the sample",
    "load": "loading the checkpoint",
    "extract": "features",
    "score": "linear probes",
}


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    logger.debug("%s", _STAGES[name])
    try:
        yield
    finally:
        seconds[name] = time.perf_counter() - start


def _extracted(probe: Probe, part: Task, batch_size: int | None) -> NDArray[np.float32]:
    """Return features, or say which checkpoint failed where: a foreign network may raise anything."""
    try:
        return extract_features(probe, part, batch_size=batch_size)
    except Task2VecError:
        raise
    except Exception as error:
        raise ProbeError(
            f"{probe.name!r} fails on the images of {part.dataset!r} (device {probe.device}): "
            f"{type(error).__name__}: {error}"
        ) from error


def _size(probe: Probe) -> int:
    return sum(tensor.nbytes for tensor in (*probe.module.parameters(), *probe.module.buffers()))


def _text(identity: Mapping[str, Any]) -> str:
    return canonical_json(dict(identity)).decode()
