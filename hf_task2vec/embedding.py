"""Task embeddings: the vector, where it came from, and how it is saved and read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import EmbeddingError, SchemaVersionError
from hf_task2vec.files import atomic_path, canonical_json, sha256_bytes, sha256_file, write_json

if TYPE_CHECKING:
    from hf_task2vec.task import Task

SCHEMA_VERSION = 1
VALUES_FILE, DOCUMENT_FILE = "embedding.safetensors", "embedding.json"
_DOCUMENT_KEYS = {"schema_version", "probe", "task", "config", "versions", "descriptors", "layers", "sha256"}


@dataclass(frozen=True, eq=False)
class TaskEmbedding:
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
        How it was computed: label sampling, draws, seed.
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

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``embedding.safetensors`` and ``embedding.json`` into `directory`; each appears whole or not at all.

        Returns
        -------
        Path
            The directory.
        """
        from safetensors.numpy import save_file

        folder = Path(directory)
        tensors = {
            "values": self.values,
            "feature_mean": self.feature_mean,
            "feature_var": self.feature_var,
            "layer_sizes": self.layer_sizes,
        }
        with atomic_path(folder / VALUES_FILE) as temporary:
            save_file(tensors, temporary)
            digest = sha256_file(temporary)
        write_json(folder / DOCUMENT_FILE, {**self.describe(), "sha256": digest})
        return folder

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> TaskEmbedding:
        """Read an embedding that :meth:`save` wrote.

        Raises
        ------
        EmbeddingError
            A file is missing, damaged or inconsistent.
        SchemaVersionError
            The files were written by a newer version of this package.
        """
        folder = Path(directory)
        document = _read_document(folder / DOCUMENT_FILE)
        path = folder / VALUES_FILE
        if not path.is_file():
            raise EmbeddingError(
                f"{folder} holds {DOCUMENT_FILE} but no {VALUES_FILE}; copy or save the embedding again"
            )
        found = sha256_file(path)
        if found != document["sha256"]:
            raise EmbeddingError(
                f"{path} has sha256 {found[:12]}…, but {DOCUMENT_FILE} expects {str(document['sha256'])[:12]}…: the "
                "file is damaged or the two belong to different embeddings; save or download the embedding again"
            )
        tensors = _read_tensors(path)
        try:
            return cls(
                **tensors,
                layer_names=tuple(str(layer["name"]) for layer in document["layers"]),
                **{key: document[key] for key in ("probe", "task", "descriptors", "config", "versions")},
            )
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise EmbeddingError(f"{folder / DOCUMENT_FILE} is malformed: {type(error).__name__}: {error}") from error


def _check(e: TaskEmbedding) -> None:
    arrays = {"values": e.values, "feature_mean": e.feature_mean, "feature_var": e.feature_var}
    for name, array in arrays.items():
        if array.ndim != 1 or array.dtype != np.float32 or not len(array):
            raise EmbeddingError(f"{name} must be a float32 vector, found {array.dtype} of shape {array.shape}")
        if not np.isfinite(array).all():
            raise EmbeddingError(f"{name} holds values that are not finite")
    if (e.values < 0).any() or (e.feature_var < 0).any():
        raise EmbeddingError("Fisher values and feature variances cannot be negative")
    sizes = e.layer_sizes
    if sizes.ndim != 1 or sizes.dtype != np.int64 or (sizes <= 0).any() or len(sizes) != len(e.layer_names):
        raise EmbeddingError(f"layer_sizes must hold one positive int64 for each of {len(e.layer_names)} layers")
    if int(sizes.sum()) != len(e.values):
        raise EmbeddingError(f"layer_sizes sum to {int(sizes.sum())}, but there are {len(e.values)} values")
    if len(e.feature_mean) != len(e.feature_var):
        raise EmbeddingError("feature_mean and feature_var differ in length")
    if not isinstance(e.probe, dict) or not {"name", "weights_hash"} <= e.probe.keys():
        raise EmbeddingError("the probe must be described by at least its name and weights_hash")
    if not all(isinstance(x, dict) for x in (e.task, e.descriptors, e.config, e.versions)):
        raise EmbeddingError("task, descriptors, config and versions must be mappings")


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EmbeddingError(
            f"no embedding in {path.parent}: {path.name} is missing; make one with embed_task"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise EmbeddingError(f"{path} cannot be read as JSON: {error}") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path} has schema version {version!r}, this version of hf_task2vec reads {SCHEMA_VERSION}; upgrade the package"
        )
    if document.keys() != _DOCUMENT_KEYS or not isinstance(document["layers"], list):
        odd = sorted(_DOCUMENT_KEYS ^ document.keys())
        raise EmbeddingError(f"{path} has missing or unknown fields: {', '.join(odd) or 'layers is no list'}")
    return document


def _read_tensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise EmbeddingError(f"{path} is no readable safetensors file: {error}") from error
    expected = {"values", "feature_mean", "feature_var", "layer_sizes"}
    if tensors.keys() != expected:
        raise EmbeddingError(f"{path} holds tensors {sorted(tensors)}, expected {sorted(expected)}")
    return dict(tensors)


def embedding_key(task: Task, probe_hash: str, config: dict[str, Any]) -> str:
    """Name of an embedding in a cache: changes with the sample, the probe's weights, the settings or the file format."""
    parts = {"task": task.fingerprint, "probe": probe_hash, "config": config, "schema_version": SCHEMA_VERSION}
    return sha256_bytes(canonical_json(parts))[:32]


def embedding_config(label_sampling: str = "sketch", draws: int = 1, seed: int = 0) -> dict[str, Any]:
    """Return the settings that change an embedding's values."""
    return {"label_sampling": label_sampling, "draws": draws, "seed": seed}
