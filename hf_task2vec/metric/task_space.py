"""Tasks as a metric sees them: embeddings of one probe, centred on the reference tasks, and their descriptors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.embedding import log_profile
from hf_task2vec.errors import MetricError, ProbeMismatchError

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding

Array = NDArray[np.float64]

#: Descriptors of a task that the metric reads beside the Fisher vector, each brought to unit order of magnitude.
TASK_DESCRIPTORS = (
    "log_classes", "linear_probe_accuracy_gain", "class_separation", "log_side", "grey_share", "early_depth",
    "mid_depth",
)  # fmt: skip
# What they are computed from.
_READ = (
    "n_classes", "linear_probe_accuracy_gain", "class_separation", "median_side_px", "grey_share",
    "early_accuracy_gain", "mid_accuracy_gain",
)  # fmt: skip

#: Kinds of tasks, by the domains of ``tasks.csv``: where encoders made for one domain are at home.
KINDS_OF_DOMAINS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "natural": (
            "natural-objects", "objects", "scene", "actions", "art", "driving", "sketch", "drawings", "faces",
            "clothing", "space",
        ),
        "fine-grained": ("fine-grained-objects", "food"),
        "nature": ("fine-grained-animals", "animals-fine-grained", "plants"),
        "satellite": ("satellite",),
        "histology": ("histology",),
        "radiology": ("radiology",),
        "medical": ("medical", "microscopy"),
        "synthetic": ("synthetic", "synthetic-3d", "synthetic-factors"),
        "glyphs": ("characters", "symbols", "handwriting", "rendered-text", "text-in-image", "charts"),
        "texture": ("texture", "industrial"),
    }
)  # fmt: skip
KINDS = tuple(KINDS_OF_DOMAINS)


def check_domain(domain: str | None) -> str | None:
    """Return a kind of task, or None; raise MetricError for what is none."""
    if domain is not None and domain not in KINDS:
        raise MetricError(f"domain {domain!r} is unknown; choose one of {', '.join(KINDS)}")
    return domain


_ARRAYS = ("profiles", "moments", "descriptors", "embedded", "values", "kinds")


@dataclass(frozen=True, eq=False)
class TaskFeatures:
    """Tasks as the metric sees them.

    Attributes
    ----------
    names
        Task names; tasks of equal name are the same task.
    profiles
        Shape (n, F): centred and normalised log Fisher profiles, so that ``½‖u − v‖²`` is a correlation distance;
        zero rows for tasks without an embedding.
    moments
        Shape (n, 2d): the same of the features' means and log variances.
    descriptors
        Shape (n, 7), in the order of `TASK_DESCRIPTORS`, about the mean of the reference tasks; zero rows likewise.
    embedded
        Shape (n,), bool.
    values
        Shape (n, F): the embeddings themselves; zero rows for tasks without one.
    kinds
        Shape (n, kinds): shares of the `KINDS`; a zero row where that is unknown.
    """

    names: tuple[str, ...]
    profiles: Array
    moments: Array
    descriptors: Array
    embedded: NDArray[np.bool_]
    values: NDArray[np.float32]
    kinds: Array

    def take(self, rows: NDArray[np.int64]) -> TaskFeatures:
        """Return the tasks at `rows`."""
        names = tuple(self.names[i] for i in rows)
        return TaskFeatures(names, **{name: getattr(self, name)[rows] for name in _ARRAYS})

    def and_unknown(self, names: tuple[str, ...]) -> TaskFeatures:
        """Return them and tasks without an embedding, which are similar to nothing but themselves."""

        def more(rows: NDArray[Any]) -> NDArray[Any]:
            found = np.zeros((len(rows) + len(names), *rows.shape[1:]), rows.dtype)  # takes no memory for zeros
            found[: len(rows)] = rows
            return found

        arrays = {name: more(getattr(self, name)) for name in _ARRAYS}
        return TaskFeatures((*self.names, *names), **arrays)

    def of_kind(self, kind: str) -> TaskFeatures:
        """Return them with one kind, that is known."""
        return replace(self, kinds=np.tile(np.array(KINDS) == kind, (len(self.names), 1)).astype(np.float64))

    def of_domains(self, domains: Mapping[str, str | None]) -> TaskFeatures:
        """Return them with the kinds that their domains, by task, belong to."""
        kinds = [[domains.get(name) in of for of in KINDS_OF_DOMAINS.values()] for name in self.names]
        return replace(self, kinds=np.array(kinds, dtype=np.float64).reshape(-1, len(KINDS)))


@dataclass(frozen=True, eq=False)
class TaskSpace:
    """Maps embeddings of one probe to :class:`TaskFeatures`; centred on the reference tasks."""

    weights_hash: str
    layer_sizes: NDArray[np.int64]
    centre: Array
    moments_centre: Array
    moments_scale: Array
    descriptors_centre: Array

    @classmethod
    def fit(cls, table: TaskEmbedding) -> TaskSpace:
        """Centre the space on the tasks of an embedding table."""
        profiles = log_profile(table.values.astype(np.float64), table.layer_sizes)
        moments = _raw_moments(table.feature_mean, table.feature_var)
        return cls(
            table.weights_hash,
            table.layer_sizes,
            profiles.mean(axis=0),
            moments.mean(axis=0),
            np.maximum(moments.std(axis=0), 1e-6),
            _described(table.names, table.task_descriptors).mean(axis=0),
        )

    def features(
        self, names: tuple[str, ...], values: Any, mean: Any, var: Any, descriptors: Sequence[Mapping[str, float]]
    ) -> TaskFeatures:
        """Map raw embedding arrays, one row per task, into the space."""
        profiles = log_profile(np.asarray(values, dtype=np.float64), self.layer_sizes) - self.centre
        moments = (_raw_moments(mean, var) - self.moments_centre) / self.moments_scale
        described = _described(names, descriptors) - self.descriptors_centre
        embedded = np.ones(len(names), dtype=np.bool_)
        raw = np.asarray(values, dtype=np.float32)
        kinds = np.zeros((len(names), len(KINDS)))
        return TaskFeatures(names, _unit(profiles), _unit(moments), described, embedded, raw, kinds)

    def of_embedding(self, embedding: TaskEmbedding, names: tuple[str, ...] | None = None) -> TaskFeatures:
        """Features of embedded tasks, shapes (n, ...); `names` are those of reference tasks, None for a query.

        Raises
        ------
        ProbeMismatchError
            It comes from another probe.
        MetricError
            It lacks a descriptor.
        """
        if embedding.weights_hash != self.weights_hash:
            raise ProbeMismatchError(
                f"{embedding.names[0]!r} was embedded with probe {embedding.probe['name']!r} (weights "
                f"{embedding.weights_hash[:12]}…), the index with weights {self.weights_hash[:12]}…; "
                "embed it with the index's probe"
            )
        return self.features(
            tuple(f"query:{name}" for name in embedding.names) if names is None else names,
            embedding.values,
            embedding.feature_mean,
            embedding.feature_var,
            embedding.task_descriptors,
        )


def _raw_moments(mean: Any, var: Any) -> Array:
    mean, var = np.asarray(mean, dtype=np.float64), np.asarray(var, dtype=np.float64)
    return np.concatenate([mean, 0.5 * np.log(var + 1e-4)], axis=-1)


def _unit(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def _described(names: tuple[str, ...], descriptors: Sequence[Mapping[str, float]]) -> Array:
    rows = [_descriptor_row(name, d) for name, d in zip(names, descriptors, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, len(TASK_DESCRIPTORS))


def _descriptor_row(name: str, d: Mapping[str, float]) -> list[float]:
    if missing := [key for key in _READ if key not in d]:
        raise MetricError(
            f"the embedding of {name.removeprefix('query:')!r} lacks the descriptors {', '.join(missing)}: it was made "
            "by an earlier version; embed the task again"
        )
    return [
        np.log2(max(d["n_classes"], 2.0)) / 3.0,
        d["linear_probe_accuracy_gain"] / 0.3,
        d["class_separation"] / 0.15,
        np.log2(max(d["median_side_px"], 1.0) / 150.0),
        d["grey_share"],
        (d["early_accuracy_gain"] - d["linear_probe_accuracy_gain"]) / 0.2,
        (d["mid_accuracy_gain"] - d["linear_probe_accuracy_gain"]) / 0.15,
    ]
