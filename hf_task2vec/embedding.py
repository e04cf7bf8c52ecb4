"""Task embeddings: the vector, where it came from, and how it is saved and read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec import embedding_file
from hf_task2vec.embedding_file import (
    DOCUMENT_FILE,  # noqa: F401 (known under this module, too)
    SCHEMA_VERSION,
    SUFFIX,
    TENSORS,
    VALUES_FILE,  # noqa: F401
)
from hf_task2vec.errors import EmbeddingError
from hf_task2vec.files import canonical_json, sha256_bytes
from hf_task2vec.hub_methods import EmbeddingOnHub

if TYPE_CHECKING:
    from hf_task2vec.task import Task

#: What :func:`~hf_task2vec.embed.embed_task` says of a task beside its vector, and a ranking needs.
DESCRIPTORS = (
    "n_classes", "n_samples", "n_rows", "class_balance", "probe_accuracy", "probe_accuracy_gain", "class_separation",
    "early_accuracy_gain", "mid_accuracy_gain", "median_side_px", "grey_share", "noise",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class TaskEmbedding(EmbeddingOnHub):
    """A task as a vector, with everything needed to interpret and compare it.

    Attributes
    ----------
    values
        Shape (F,), float32: mean Fisher information of each filter, in embedding order, ≥ 0.
    layer_names, layer_sizes
        Names of the L layers, and how many consecutive values belong to each (shape (L,), int64, summing to F).
    feature_mean, feature_var
        Shape (d,), float32: mean and variance of the probe's pooled features over the sample.
    probe
        Name, revision, weight hash and preprocessing of the probe network.
    task
        Provenance of the sample: dataset, revision, split, columns, counts, fingerprint.
    descriptors
        Label-sensitive numbers: classes, samples, class balance, the probe's cross-validated accuracy, ...
    config
        How it was computed: label sampling, seed.
    versions
        Versions of the libraries used.
    """

    values: NDArray[np.float32]
    layer_names: tuple[str, ...]
    layer_sizes: NDArray[np.int64]
    feature_mean: NDArray[np.float32]
    feature_var: NDArray[np.float32]
    probe: dict[str, Any]
    task: dict[str, Any]
    descriptors: dict[str, float]
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        accuracy = self.descriptors.get("probe_accuracy")
        known = f", probe accuracy {accuracy:.2f}" if accuracy is not None else ""
        return (
            f"TaskEmbedding({self.name!r}, {len(self)} filters in {len(self.layer_names)} layers, "
            f"probe {self.probe['name']!r}, {self.descriptors.get('n_samples', 0):.0f} images{known})"
        )

    @property
    def name(self) -> str:
        """Name of the dataset embedded."""
        return str(self.task.get("dataset", "unknown"))

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the probe's weights: only embeddings of equal hash can be compared."""
        return str(self.probe["weights_hash"])

    def describe(self) -> dict[str, Any]:
        """Return all but the arrays, ready for JSON."""
        layers = [{"name": n, "n_filters": int(s)} for n, s in zip(self.layer_names, self.layer_sizes, strict=True)]
        return {
            "schema_version": SCHEMA_VERSION,
            "probe": self.probe,
            "task": self.task,
            "config": self.config,
            "versions": self.versions,
            "descriptors": self.descriptors,
            "layers": layers,
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the embedding to a folder or, if `path` ends in ``.safetensors``, to that one file.

        A folder gets ``embedding.safetensors`` and ``embedding.json``, a single file holds both. Each file appears
        whole or not at all.

        Returns
        -------
        Path
            The folder or file.

        Raises
        ------
        EmbeddingError
            It cannot be written.
        """
        target = Path(path)
        if target.suffix == SUFFIX and not target.is_dir():
            embedding_file.write_file(target, self._arrays, self.describe())
        else:
            embedding_file.write_folder(target, self._arrays, self.describe())
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TaskEmbedding:
        """Read the folder or file that :meth:`save` wrote.

        Raises
        ------
        EmbeddingError
            A file is missing, damaged or inconsistent.
        SchemaVersionError
            The files were written in another version of the format.
        """
        fields = embedding_file.read(Path(path))
        try:
            return cls(**fields)
        except EmbeddingError as error:
            raise EmbeddingError(f"the embedding in {path} is malformed: {error}") from None

    def to_bytes(self) -> bytes:
        """Return the content of the single file; equal embeddings give equal bytes."""
        return embedding_file.pack(self._arrays, self.describe())

    @property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in TENSORS}


def _check(e: TaskEmbedding) -> None:
    for name in ("values", "feature_mean", "feature_var"):
        array = getattr(e, name)
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype != np.float32 or not len(array):
            raise EmbeddingError(f"{name} must be a float32 vector, found {_kind(array)}")
        if not np.isfinite(array).all():
            raise EmbeddingError(f"{name} holds values that are not finite")
    if (e.values < 0).any() or (e.feature_var < 0).any():
        raise EmbeddingError("Fisher values and feature variances cannot be negative")
    if len(e.feature_mean) != len(e.feature_var):
        raise EmbeddingError(f"feature_mean has {len(e.feature_mean)} entries, feature_var {len(e.feature_var)}")
    _check_layers(e.layer_names, e.layer_sizes, len(e.values))
    _check_descriptions(e)


def _check_layers(names: tuple[str, ...], sizes: Any, n_values: int) -> None:
    if not isinstance(sizes, np.ndarray) or sizes.dtype != np.int64 or sizes.shape != (len(names),):
        raise EmbeddingError(f"layer_sizes must be {len(names)} int64, one a layer, found {_kind(sizes)}")
    # Each is bounded too, so that the sum cannot overflow to the right number.
    if (sizes < 1).any() or (sizes > n_values).any() or int(sizes.sum()) != n_values:
        raise EmbeddingError(f"layer_sizes must be positive and sum to the {n_values} values")


def _check_descriptions(e: TaskEmbedding) -> None:
    for name in ("probe", "task", "descriptors", "config", "versions"):
        if not isinstance(getattr(e, name), dict):
            raise EmbeddingError(f"{name} must be a mapping, found {_kind(getattr(e, name))}")
    if not all(isinstance(e.probe.get(key), str) for key in ("name", "weights_hash")):
        raise EmbeddingError("the probe must be described by at least its name and weights_hash, both text")
    for name, value in e.descriptors.items():
        if not _is_finite_number(value):
            raise EmbeddingError(f"descriptor {name!r} must be a finite number, found {value!r}")
    try:
        canonical_json(e.describe())
    except (TypeError, ValueError, RecursionError) as error:
        raise EmbeddingError(f"what describes the embedding cannot be written as JSON: {error}") from error


def _is_finite_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and -1e300 < value < 1e300  # math.isfinite raises on an int too large for a float


def _kind(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


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
    config: dict[str, Any] = {"label_sampling": label_sampling, "draws": 1, "seed": seed}
    return config if estimator == "fisher" else {**config, "estimator": estimator}
