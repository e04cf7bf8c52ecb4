"""Task embeddings: the vector, where it came from, and how it is saved and read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import EmbeddingError, SchemaVersionError, TaskError
from hf_task2vec.files import atomic_path, canonical_json, sha256_bytes

if TYPE_CHECKING:
    from hf_task2vec.task import Task

SCHEMA_VERSION = 1
#: What :func:`~hf_task2vec.embed.embed_task` says of a task beside its vector, and a ranking needs.
DESCRIPTORS = (
    "n_classes", "n_samples", "n_rows", "class_balance", "probe_accuracy", "probe_accuracy_gain", "class_separation",
    "early_accuracy_gain", "mid_accuracy_gain", "median_side_px", "grey_share", "n_fisher", "noise",
)  # fmt: skip
#: ``max_samples="auto"``: images drawn, and the noise at which no more of them are used.
AUTO_SAMPLES, AUTO_TOLERANCE = 512, 0.05
VALUES_FILE, DOCUMENT_FILE = "embedding.safetensors", "embedding.json"
_TENSORS = ("values", "feature_mean", "feature_var", "layer_sizes")
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

        Raises
        ------
        EmbeddingError
            The folder cannot be written.
        """
        from safetensors.numpy import save

        folder = Path(directory)
        # The format stores raw memory: a view with strides would come back in another order.
        data = save({name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS})
        document = {**self.describe(), "sha256": sha256_bytes(data)}
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            # Both are written before either takes its place: an old embedding survives a full disk.
            with atomic_path(folder / VALUES_FILE) as values, atomic_path(folder / DOCUMENT_FILE) as description:
                values.write_bytes(data)
                description.write_text(text, encoding="utf-8")
        except OSError as error:
            raise EmbeddingError(f"the embedding cannot be written to {folder}: {error}") from error
        return folder

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> TaskEmbedding:
        """Read an embedding that :meth:`save` wrote.

        Raises
        ------
        EmbeddingError
            A file is missing, damaged or inconsistent.
        SchemaVersionError
            The files were written in another version of the format.
        """
        folder = Path(directory)
        document = _read_document(folder / DOCUMENT_FILE)
        tensors = _read_tensors(folder / VALUES_FILE, str(document["sha256"]))
        names, sizes = _layers(document["layers"])
        if sizes != tensors["layer_sizes"].tolist():
            raise EmbeddingError(f"the layers in {folder / DOCUMENT_FILE} are not those of {VALUES_FILE}")
        described = {key: document[key] for key in ("probe", "task", "descriptors", "config", "versions")}
        try:
            return cls(**tensors, layer_names=names, **described)
        except EmbeddingError as error:
            raise EmbeddingError(f"the embedding in {folder} is malformed: {error}") from None


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


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (FileNotFoundError, NotADirectoryError):
        raise EmbeddingError(
            f"no embedding in {path.parent}: {path.name} is missing; make one with embed_task or `hf-task2vec embed`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise EmbeddingError(f"{path} cannot be read as JSON: {error}") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path} has schema version {version!r}, this version of hf_task2vec reads {SCHEMA_VERSION}; "
            "upgrade the package, or make the embedding again"
        )
    if odd := sorted(_DOCUMENT_KEYS ^ document.keys()):
        raise EmbeddingError(f"{path} has missing or unknown fields: {', '.join(odd)}")
    return document


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _layers(layers: Any) -> tuple[tuple[str, ...], list[int]]:
    """Return names and sizes of the layers in a document."""
    if not isinstance(layers, list) or not all(
        isinstance(x, dict) and x.keys() == {"name", "n_filters"} for x in layers
    ):
        raise EmbeddingError(f"in {DOCUMENT_FILE}, layers must be a list of mappings with name and n_filters")
    names = tuple(layer["name"] for layer in layers)
    if not all(isinstance(name, str) for name in names):
        raise EmbeddingError(f"in {DOCUMENT_FILE}, a layer's name is no text")
    return names, [layer["n_filters"] for layer in layers]


def _read_tensors(path: Path, expected_hash: str) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise EmbeddingError(f"{path} is missing; copy or save the embedding again") from None
    except OSError as error:
        raise EmbeddingError(f"{path} cannot be read: {error}") from error
    if (found := sha256_bytes(data)) != expected_hash:
        raise EmbeddingError(
            f"{path} has sha256 {found[:12]}…, but {DOCUMENT_FILE} expects {expected_hash[:12]}…: the "
            "file is damaged or the two belong to different embeddings; save or download the embedding again"
        )
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EmbeddingError(f"{path} is no readable safetensors file: {error}") from error
    if sorted(tensors) != sorted(_TENSORS):
        raise EmbeddingError(f"{path} holds tensors {sorted(tensors)}, expected {sorted(_TENSORS)}")
    return dict(tensors)


def embedding_key(task: Task, probe_hash: str, config: dict[str, Any], view: dict[str, Any] | None = None) -> str:
    """Name of an embedding in a cache: changes with the sample, the probe's weights, the settings, the file format.

    `view` says how a probe sees images (its input size and preprocessing), None if as its checkpoint does.
    """
    parts = {"task": task.fingerprint, "probe": probe_hash, "config": config, "schema_version": SCHEMA_VERSION}
    if view is not None:
        parts["view"] = view
    return sha256_bytes(canonical_json(parts))[:32]


def embedding_config(
    label_sampling: str = "sketch",
    draws: int = 1,
    seed: int = 0,
    noise_tolerance: float | None = None,
    estimator: str = "fisher",
    autocast: str | None = None,
) -> dict[str, Any]:
    """Return the settings that change an embedding's values, without the later ones where they are the defaults."""
    config: dict[str, Any] = {"label_sampling": label_sampling, "draws": draws, "seed": seed}
    if noise_tolerance is not None:
        config["noise_tolerance"] = noise_tolerance
    if autocast is not None:
        config["autocast"] = autocast
    return config if estimator == "fisher" else {**config, "estimator": estimator}


def sample_settings(max_samples: int | str | None, noise_tolerance: float | None) -> tuple[int | None, float | None]:
    """Return how many images to draw at most, and the noise at which to stop; ``"auto"`` means 512 and 0.05.

    Raises
    ------
    TaskError, EmbeddingError
        One of them is out of range.
    """
    if noise_tolerance is not None and not noise_tolerance > 0:
        raise EmbeddingError(f"noise_tolerance={noise_tolerance!r} must be positive, or None to use all images")
    if max_samples == "auto":
        return AUTO_SAMPLES, AUTO_TOLERANCE if noise_tolerance is None else noise_tolerance
    if isinstance(max_samples, str):
        raise TaskError(f"max_samples={max_samples!r}: give a whole number, None for all images, or 'auto'")
    return max_samples, noise_tolerance
