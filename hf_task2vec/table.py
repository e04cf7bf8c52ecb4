"""The reference tasks' embeddings by one probe: a table in memory and one safetensors file on disk."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_task2vec.distance import check_comparable
from hf_task2vec.embedding import TaskEmbedding
from hf_task2vec.errors import SchemaVersionError, ZooIndexError
from hf_task2vec.files import atomic_path, canonical_json

TABLE_SCHEMA_VERSION = 1
_TENSORS = ("feature_mean", "feature_var", "layer_sizes", "values")
_METADATA = ("config", "descriptors", "layer_names", "probe", "schema_version", "tasks", "versions", "weights_hash")


def probe_slug(probe: str) -> str:
    """Return the file name stem of a probe: ``timm/x.in1k`` gives ``timm--x.in1k``; other signs become ``_``."""
    return re.sub(r"[^A-Za-z0-9._\-]", "_", probe.replace("/", "--")).lstrip(".") or "_"


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """Embeddings of T tasks by one probe with F filters in L layers and d features.

    Parameters
    ----------
    probe, weights_hash
        The probe's name and the SHA-256 of its weights (64 hexadecimal digits).
    tasks
        T task slugs, unique, in the order of the rows.
    values
        (T, F) float32, the mean diagonal Fisher information of each filter, finite and not negative.
    layer_names, layer_sizes
        L layer names and (L,) int64 filters of each; the sizes sum to F.
    feature_mean, feature_var
        (T, d) float32, mean and variance of the probe's pooled features over each task's images.
    descriptors
        T JSON-able mappings of label-sensitive facts (classes, samples, the probe's own accuracy, ...).
    config, versions
        How the embeddings were computed, and by which library versions (JSON-able).

    Raises
    ------
    ZooIndexError
        If shapes disagree, a value is not finite or is negative, or a task occurs twice.
    """

    probe: str
    weights_hash: str
    tasks: tuple[str, ...]
    values: np.ndarray
    layer_names: tuple[str, ...]
    layer_sizes: np.ndarray
    feature_mean: np.ndarray
    feature_var: np.ndarray
    descriptors: tuple[dict[str, Any], ...]
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, dtype in (("values", "f4"), ("feature_mean", "f4"), ("feature_var", "f4"), ("layer_sizes", "i8")):
            array = np.ascontiguousarray(getattr(self, name), dtype=dtype).view()  # a view: its flags are our own
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        for name in ("tasks", "layer_names", "descriptors"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if problems := self._problems():
            raise ZooIndexError(f"embedding table of probe {self.probe!r}: " + "; ".join(problems))

    def _problems(self) -> list[str]:
        n, problems = len(self.tasks), []
        shapes = {"values": (n, int(self.layer_sizes.sum())), "layer_sizes": (len(self.layer_names),)}
        shapes["feature_mean"] = shapes["feature_var"] = (
            n,
            self.feature_mean.shape[-1] if self.feature_mean.ndim else 0,
        )
        for name, expected in shapes.items():
            if (shape := getattr(self, name).shape) != expected:
                problems.append(f"{name} has shape {shape}; expected {expected} from the tasks and layers")
        for name in ("values", "feature_mean", "feature_var"):
            array = getattr(self, name)
            if not np.isfinite(array).all():
                problems.append(f"{name} holds a value that is not finite")
            elif name != "feature_mean" and (array < 0).any():
                problems.append(f"{name} holds a negative value; Fisher information and variances are not negative")
        if (self.layer_sizes < 1).any():
            problems.append("layer_sizes holds a size below 1")
        if len(self.descriptors) != n:
            problems.append(f"{len(self.descriptors)} descriptors for {n} tasks")
        if repeated := sorted({task for task in self.tasks if self.tasks.count(task) > 1}):
            problems.append(f"tasks occur twice: {repeated}")
        if not re.fullmatch(r"[0-9a-f]{64}", self.weights_hash):
            problems.append(f"weights_hash {self.weights_hash!r} is not a SHA-256 in hexadecimal")
        return problems

    def __len__(self) -> int:
        return len(self.tasks)

    @classmethod
    def from_embeddings(cls, embeddings: Mapping[str, TaskEmbedding]) -> EmbeddingTable:
        """Stack embeddings of one probe, by task slug; rows sorted by slug.

        Raises
        ------
        ProbeMismatchError
            If they come from different probes.
        """
        names = sorted(embeddings)
        rows = [embeddings[name] for name in names]
        for row in rows[1:]:
            check_comparable(rows[0], row)
        return cls(
            probe=rows[0].probe["name"],
            weights_hash=rows[0].weights_hash,
            tasks=tuple(names),
            values=np.stack([row.values for row in rows]),
            layer_names=rows[0].layer_names,
            layer_sizes=rows[0].layer_sizes,
            feature_mean=np.stack([row.feature_mean for row in rows]),
            feature_var=np.stack([row.feature_var for row in rows]),
            descriptors=tuple(row.descriptors for row in rows),
            config=rows[0].config,
            versions=rows[0].versions,
        )

    def embedding(self, task: str) -> TaskEmbedding:
        """Return one row as a task embedding; of its provenance the table keeps the slug alone.

        Raises
        ------
        ZooIndexError
            If the table has no such task.
        """
        if task not in self.tasks:
            raise ZooIndexError(f"no embedding of {task!r}; the table of probe {self.probe!r} has {sorted(self.tasks)}")
        row = self.tasks.index(task)
        return TaskEmbedding(
            values=self.values[row],
            layer_names=self.layer_names,
            layer_sizes=self.layer_sizes,
            feature_mean=self.feature_mean[row],
            feature_var=self.feature_var[row],
            probe={"name": self.probe, "weights_hash": self.weights_hash},
            task={"dataset": task},
            descriptors=dict(self.descriptors[row]),
            config=dict(self.config),
            versions=dict(self.versions),
        )

    def select(self, tasks: Sequence[str]) -> EmbeddingTable:
        """Return the rows of `tasks`, in that order.

        Raises
        ------
        ZooIndexError
            If a task is not in the table.
        """
        position = {task: row for row, task in enumerate(self.tasks)}
        if unknown := [task for task in tasks if task not in position]:
            raise ZooIndexError(f"no embedding of {unknown} by {self.probe!r}; embedded tasks: {sorted(position)}")
        rows = [position[task] for task in tasks]
        return self._with_rows(
            tuple(tasks),
            self.values[rows],
            self.feature_mean[rows],
            self.feature_var[rows],
            tuple(self.descriptors[row] for row in rows),
        )

    def union(self, other: EmbeddingTable) -> EmbeddingTable:
        """Return the tasks of both tables, sorted by name.

        Raises
        ------
        ZooIndexError
            If the tables are of different probes, weights, layers or configurations, or disagree about a task.
        """
        for name in ("probe", "weights_hash", "layer_names", "config"):
            if (mine := getattr(self, name)) != (theirs := getattr(other, name)):
                raise ZooIndexError(f"embedding tables of {self.probe!r} differ in {name}: {mine!r} and {theirs!r}")
        known = set(self.tasks)
        shared = [task for task in other.tasks if task in known]
        if self.select(shared).to_bytes(with_versions=False) != other.select(shared).to_bytes(with_versions=False):
            raise ZooIndexError(f"embedding tables of {self.probe!r} hold different values of some of {shared}")
        new = other.select([task for task in other.tasks if task not in known])
        joined = self._with_rows(
            self.tasks + new.tasks,
            np.concatenate([self.values, new.values]),
            np.concatenate([self.feature_mean, new.feature_mean]),
            np.concatenate([self.feature_var, new.feature_var]),
            self.descriptors + new.descriptors,
        )
        return joined.select(sorted(joined.tasks))

    def _with_rows(
        self,
        tasks: tuple[str, ...],
        values: np.ndarray,
        feature_mean: np.ndarray,
        feature_var: np.ndarray,
        descriptors: tuple[dict[str, Any], ...],
    ) -> EmbeddingTable:
        return EmbeddingTable(
            probe=self.probe,
            weights_hash=self.weights_hash,
            tasks=tasks,
            values=values,
            layer_names=self.layer_names,
            layer_sizes=self.layer_sizes,
            feature_mean=feature_mean,
            feature_var=feature_var,
            descriptors=descriptors,
            config=self.config,
            versions=self.versions,
        )

    def to_bytes(self, *, with_versions: bool = True) -> bytes:
        """Return the table as one safetensors file; equal tables give equal bytes."""
        from safetensors.numpy import save

        metadata = {
            "schema_version": TABLE_SCHEMA_VERSION,
            "probe": self.probe,
            "weights_hash": self.weights_hash,
            "layer_names": list(self.layer_names),
            "tasks": list(self.tasks),
            "descriptors": list(self.descriptors),
            "config": self.config,
            "versions": self.versions if with_versions else {},
        }
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS}
        raw = save(tensors, metadata={name: canonical_json(value).decode() for name, value in metadata.items()})
        # The library writes the metadata in an arbitrary order: sort the header so that checksums are reproducible.
        start = 8 + int.from_bytes(raw[:8], "little")
        header = canonical_json(json.loads(raw[8:start]))
        header += b" " * (-len(header) % 8)
        return len(header).to_bytes(8, "little") + header + raw[start:]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table to `path`, atomically."""
        with atomic_path(path) as temporary:
            temporary.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EmbeddingTable:
        """Read a table.

        Raises
        ------
        SchemaVersionError
            If the file has another schema version.
        ZooIndexError
            If the file is missing, truncated or malformed; the message names it.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as handle:
                metadata = _parse_metadata(handle.metadata() or {}, Path(path).name)
                if (found := sorted(handle.keys())) != sorted(_TENSORS):
                    raise ZooIndexError(f"{path}: tensors found: {found}; expected {sorted(_TENSORS)}")
                tensors = {name: handle.get_tensor(name) for name in _TENSORS}
        except (SafetensorError, OSError) as error:
            raise ZooIndexError(f"{path}: not a readable safetensors file ({error})") from error
        try:
            return cls(**metadata, **tensors)
        except (TypeError, ValueError) as error:
            raise ZooIndexError(f"{path}: malformed embedding table ({error})") from error
        except ZooIndexError as error:
            raise ZooIndexError(f"{path}: {error}") from None


def _parse_metadata(texts: Mapping[str, str], name: str) -> dict[str, Any]:
    if (version := texts.get("schema_version")) != str(TABLE_SCHEMA_VERSION):
        raise SchemaVersionError(
            f"{name}: schema version {version}; this release reads version {TABLE_SCHEMA_VERSION} "
            "(update hf-task2vec, or write the file again with this release)"
        )
    if sorted(texts) != sorted(_METADATA):
        raise ZooIndexError(f"{name}: metadata found: {sorted(texts)}; expected {sorted(_METADATA)}")
    try:
        parsed = {key: json.loads(text) for key, text in texts.items() if key != "schema_version"}
    except json.JSONDecodeError as error:
        raise ZooIndexError(f"{name}: metadata is not JSON ({error})") from None
    kinds: dict[str, type] = dict.fromkeys(("tasks", "layer_names", "descriptors"), list)
    kinds |= dict.fromkeys(("probe", "weights_hash"), str) | dict.fromkeys(("config", "versions"), dict)
    items = {"tasks": str, "layer_names": str, "descriptors": dict}
    for key, kind in kinds.items():
        good = isinstance(parsed[key], kind)
        if not good or not all(isinstance(item, items[key]) for item in parsed[key] if key in items):
            raise ZooIndexError(f"{name}: metadata {key} should be a {kind.__name__}" + " of the right kind of items")
    return parsed
