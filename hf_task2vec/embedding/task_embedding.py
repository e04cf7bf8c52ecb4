"""Task embeddings: the vectors of one or more tasks, where they came from, and the file that holds them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import EmbeddingError, ProbeMismatchError
from hf_task2vec.files import atomic_path, canonical_json, sha256_bytes, why
from hf_task2vec.hub import EmbeddingOnHub

if TYPE_CHECKING:
    from hf_task2vec.tasks import Task

SCHEMA_VERSION = 2
SUFFIX = ".safetensors"
_ROW_TENSORS = ("values", "feature_mean", "feature_var")  # one row a task
#: What `Task.describe` says of how the files were read, where names of files stand.
_OF_FILES = ("read", "reading", "warnings")
#: The one key of a file's metadata; its value is a JSON document.
_METADATA_KEY = "task2vec"
#: What :func:`~hf_task2vec.embedding.embed.embed_task` says of a task beside its vector, and a ranking needs.
DESCRIPTORS = (
    "n_classes", "n_samples", "n_rows", "class_balance", "linear_probe_accuracy", "linear_probe_accuracy_gain",
    "class_separation", "early_accuracy_gain", "mid_accuracy_gain", "median_side_px", "grey_share", "noise",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class TaskEmbedding(EmbeddingOnHub):
    """One or more tasks as vectors of one probe, with everything needed to interpret and compare them.

    ``len(embedding)`` is the number n of tasks; ``embedding["trashnet"]`` and ``embedding[0]`` take one of them.

    Attributes
    ----------
    values
        Shape (n, F), float32: mean Fisher information of each filter, in embedding order, ≥ 0.
    layer_names, layer_sizes
        Names of the L layers, and how many consecutive values belong to each (shape (L,), int64, summing to F).
    feature_mean, feature_var
        Shape (n, d), float32: mean and variance of the probe's pooled features over each task's sample.
    probe
        Name, revision, weight hash and preprocessing of the probe network.
    tasks
        Of each task the provenance of its sample: dataset, revision, split, columns, counts, fingerprint.
    task_descriptors
        Of each task label-sensitive numbers: classes, samples, class balance, accuracy of a linear probe, ...
    config
        How they were computed: label sampling, seed.
    versions
        Versions of the libraries used.
    """

    values: NDArray[np.float32]
    layer_names: tuple[str, ...]
    layer_sizes: NDArray[np.int64]
    feature_mean: NDArray[np.float32]
    feature_var: NDArray[np.float32]
    probe: dict[str, Any]
    tasks: tuple[dict[str, Any], ...]
    task_descriptors: tuple[dict[str, float], ...]
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def stack(cls, embeddings: Sequence[TaskEmbedding], names: Sequence[str] | None = None) -> TaskEmbedding:
        """Put the tasks of several embeddings into one; `names`, one a task, take the place of their provenance.

        Raises
        ------
        EmbeddingError
            There are none.
        ProbeMismatchError
            They come from different probes.
        """
        if not embeddings:
            raise EmbeddingError("there is no embedding to compare or to put together; give at least one")
        first = embeddings[0]
        for other in embeddings[1:]:
            check_comparable(first, other)
        rows: dict[str, Any] = {name: np.concatenate([getattr(e, name) for e in embeddings]) for name in _ROW_TENSORS}
        tasks = [task for e in embeddings for task in e.tasks] if names is None else [{"dataset": n} for n in names]
        descriptors = tuple(found for e in embeddings for found in e.task_descriptors)
        return replace(first, **rows, tasks=tuple(tasks), task_descriptors=descriptors)

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, task: int | str) -> TaskEmbedding:
        """Return one task, by position or name."""
        if isinstance(task, str):
            if task not in self.names:
                raise EmbeddingError(f"no embedding of {task!r}; embedded are {', '.join(sorted(self.names))}")
            task = self.names.index(task)
        return self.take([range(len(self))[task]])  # so that an end is reached, and negative positions count from it

    def take(self, rows: Sequence[int]) -> TaskEmbedding:
        """Return the tasks at the positions `rows`, in that order."""
        return replace(
            self,
            **{name: getattr(self, name)[list(rows)] for name in _ROW_TENSORS},
            tasks=tuple(self.tasks[row] for row in rows),
            task_descriptors=tuple(self.task_descriptors[row] for row in rows),
        )

    def without_file_names(self) -> TaskEmbedding:
        """Return the embedding as others may see it: without what was said of the user's files, by name."""
        return replace(self, tasks=tuple({k: v for k, v in task.items() if k not in _OF_FILES} for task in self.tasks))

    def __repr__(self) -> str:
        size = f"{self.values.shape[1]} filters in {len(self.layer_names)} layers, probe {self.probe['name']!r}"
        if len(self) > 1:
            return f"TaskEmbedding({len(self)} tasks, {size})"
        accuracy = self.descriptors.get("linear_probe_accuracy")
        known = f", linear probe accuracy {accuracy:.2f}" if accuracy is not None else ""
        return f"TaskEmbedding({self.name!r}, {size}, {self.descriptors.get('n_samples', 0):.0f} images{known})"

    @property
    def names(self) -> tuple[str, ...]:
        """Name of the dataset of each task."""
        return tuple(str(task.get("dataset", "unknown")) for task in self.tasks)

    @property
    def name(self) -> str:
        """Name of the dataset embedded, where there is one task."""
        return self.names[self._only()]

    @property
    def task(self) -> dict[str, Any]:
        """The provenance, where there is one task."""
        return self.tasks[self._only()]

    @property
    def descriptors(self) -> dict[str, float]:
        """The descriptors, where there is one task."""
        return self.task_descriptors[self._only()]

    def _only(self) -> int:
        if len(self) != 1:
            raise EmbeddingError(
                f"this holds {len(self)} tasks; take one of them, such as embedding[{self.names[0]!r}]"
            )
        return 0

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the probe's weights: only embeddings of equal hash can be compared."""
        return str(self.probe["weights_hash"])

    def describe(self) -> dict[str, Any]:
        """Return all of one task but the arrays, ready for JSON."""
        return self._shared() | {"task": self.task, "descriptors": self.descriptors}

    def _shared(self) -> dict[str, Any]:
        layers = [{"name": n, "n_filters": int(s)} for n, s in zip(self.layer_names, self.layer_sizes, strict=True)]
        return {
            "schema_version": SCHEMA_VERSION,
            "probe": self.probe,
            "config": self.config,
            "versions": self.versions,
            "layers": layers,
        }

    def to_bytes(self) -> bytes:
        """Return the content of the file; equal embeddings give equal bytes."""
        from safetensors.numpy import save

        document = self._shared() | {"tasks": self.tasks, "descriptors": self.task_descriptors}
        # The format stores raw memory: a view with strides would come back in another order. And one key of metadata
        # only: the library writes several in arbitrary order.
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _ROW_TENSORS}
        return save(tensors, metadata={_METADATA_KEY: json.dumps(document, ensure_ascii=False, allow_nan=False)})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file, which appears whole or not at all, and return its path.

        Raises
        ------
        EmbeddingError
            It cannot be written.
        """
        target = Path(path)
        try:
            with atomic_path(target) as temporary:
                temporary.write_bytes(self.to_bytes())
        except OSError as error:
            raise EmbeddingError(f"the embedding cannot be written to {target}: {why(error)}") from error
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TaskEmbedding:
        """Read the file that :meth:`save` wrote.

        Raises
        ------
        EmbeddingError
            It is missing, damaged, no embedding, or one of another version of the format.
        """
        try:
            data = Path(path).read_bytes()
        except FileNotFoundError:
            raise EmbeddingError(f"no embedding at {path}; make one with embed_task or `hf-task2vec embed`") from None
        except OSError as error:
            raise EmbeddingError(f"{path} cannot be read: {why(error)}") from error
        return cls.from_bytes(data, str(path))

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> TaskEmbedding:
        """Read the content of a file; `where` names it in messages. Raises as :meth:`load` does."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            text = header.get("__metadata__", {}).get(_METADATA_KEY)
            document = None if text is None else json.loads(text, parse_constant=_no_constant)
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise EmbeddingError(f"{where} is no readable task embedding: {error}") from error
        if not isinstance(document, dict):
            raise EmbeddingError(f"{where} is no task embedding: its metadata have no {_METADATA_KEY!r}")
        if document.get("schema_version") != SCHEMA_VERSION:
            raise EmbeddingError(
                f"{where} has schema version {document.get('schema_version')!r}, this version of hf_task2vec reads "
                f"{SCHEMA_VERSION}; upgrade the package, or make the embedding again"
            )
        if problem := _problem(tensors, document):
            raise EmbeddingError(f"the embedding in {where} is malformed: {problem}")
        return cls(
            values=tensors["values"],
            feature_mean=tensors["feature_mean"],
            feature_var=tensors["feature_var"],
            layer_names=tuple(layer["name"] for layer in document["layers"]),
            layer_sizes=np.array([layer["n_filters"] for layer in document["layers"]], dtype=np.int64),
            tasks=tuple(document["tasks"]),
            task_descriptors=tuple(document["descriptors"]),
            **{name: document[name] for name in ("probe", "config", "versions")},
        )


def _problem(tensors: Mapping[str, NDArray[Any]], document: Mapping[str, Any]) -> str | None:
    """Say what is wrong with the content of a file, None if nothing is."""
    kinds = {"schema_version": int, "probe": dict, "config": dict, "versions": dict}
    kinds |= dict.fromkeys(("layers", "tasks", "descriptors"), list)
    if odd := sorted(kinds.keys() ^ document.keys()):
        return f"missing or unknown fields {', '.join(odd)}"
    if odd := [name for name, kind in kinds.items() if not isinstance(document[name], kind)]:
        return f"{', '.join(odd)} of the wrong kind"
    if not all(isinstance(document["probe"].get(name), str) for name in ("name", "weights_hash")):
        return "the probe must be described by at least its name and weights_hash, both text"
    sizes = []
    for layer in document["layers"]:
        if (
            not isinstance(layer, dict)
            or not isinstance(layer.get("name"), str)
            or type(layer.get("n_filters")) is not int
        ):
            return "layers must be a list of mappings with name and n_filters"
        sizes.append(layer["n_filters"])
    if sorted(tensors) != sorted(_ROW_TENSORS):
        return f"it holds tensors {sorted(tensors)}, expected {sorted(_ROW_TENSORS)}"
    n = len(document["tasks"])
    if not n or not all(isinstance(row, dict) for row in (*document["tasks"], *document["descriptors"])):
        return "tasks and descriptors must be lists of mappings, one a task"
    d = tensors["feature_mean"].shape[-1:]
    shapes = {"values": (n, sum(sizes)), "feature_mean": (n, *d), "feature_var": (n, *d)}
    for name, shape in shapes.items():
        if tensors[name].shape != shape or tensors[name].dtype != np.float32:
            return f"{name} is {tensors[name].dtype} of shape {tensors[name].shape}, expected float32 of {shape}"
        if not np.isfinite(tensors[name]).all():
            return f"{name} holds values that are not finite"
        if name != "feature_mean" and (tensors[name] < 0).any():
            return "Fisher values and feature variances cannot be negative"
    if any(size < 1 for size in sizes) or len(document["descriptors"]) != n:
        return f"layers must have filters, and there must be descriptors of each of the {n} tasks"
    for descriptors in document["descriptors"]:
        for name, value in descriptors.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
                return f"descriptor {name!r} must be a finite number, found {value!r}"
    return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def check_comparable(a: TaskEmbedding, b: TaskEmbedding) -> None:
    """Raise ProbeMismatchError unless both embeddings come from the same probe weights and layers."""
    if a.weights_hash != b.weights_hash:
        raise ProbeMismatchError(
            f"{a.names[0]!r} was embedded with probe {a.probe['name']!r} (weights {a.weights_hash[:12]}…) and "
            f"{b.names[0]!r} with {b.probe['name']!r} (weights {b.weights_hash[:12]}…); embed both with the same probe"
        )
    if a.layer_names != b.layer_names or not np.array_equal(a.layer_sizes, b.layer_sizes):
        raise ProbeMismatchError(
            f"{a.names[0]!r} and {b.names[0]!r} cover different layers of probe {a.probe['name']!r}; embed both again "
            "with the same version of hf_task2vec"
        )


def probe_slug(probe: str) -> str:
    """Return the file name stem of a probe: ``timm/x.in1k`` gives ``timm--x.in1k``; other signs become ``_``."""
    return re.sub(r"[^A-Za-z0-9._\-]", "_", probe.replace("/", "--")).lstrip(".") or "_"


def embedding_key(
    task: Task, probe_hash: str, config: dict[str, Any], preprocessing: dict[str, Any] | None = None
) -> str:
    """Name of an embedding in a cache: changes with the sample, the probe's weights, the settings, the file format.

    `preprocessing` says how a probe sees images (its input size and transform), None if as its checkpoint does.
    """
    parts = {"task": task.fingerprint, "probe": probe_hash, "config": config, "schema_version": SCHEMA_VERSION}
    if preprocessing is not None:
        parts["preprocessing"] = preprocessing
    return sha256_bytes(canonical_json(parts))[:32]


def embedding_config(label_sampling: str = "sketch", seed: int = 0, estimator: str = "fisher") -> dict[str, Any]:
    """Return the settings that change an embedding's values."""
    config: dict[str, Any] = {"label_sampling": label_sampling, "seed": seed}
    return config if estimator == "fisher" else {**config, "estimator": estimator}
