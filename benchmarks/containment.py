"""Does one task contain another? A learned, asymmetric score of two embeddings.

A task contains another if it has all its classes and more: telling animals apart contains telling dogs apart. No
symmetric distance can say which of two tasks contains which, and Task2Vec's asymmetric one was made for transfer.
Daroya et al. (Task2Box, CVPR 2024, arXiv 2403.17173) let a network place a box for every task; the share of one box
that lies in another says whether the one task is part of the other. Here a task's box is given, not learned: intervals
of the probe's features about their means, which any task has, however unlike those learned from. Learned is how far to
trust a few statistics of two such boxes (`task_pairs.STATISTICS`), by a logistic regression on them
and their products. ``benchmarks/relations.py`` trains it on class trees of real datasets and compares it, on trees it
has not seen, with boxes from a network, with a network that sees both embeddings, and with the untrained distances.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from task_pairs import HALF_SIDE, STATISTICS, pair_statistics

from hf_task2vec.cotangents import sigmoid
from hf_task2vec.errors import MetricError, ProbeMismatchError, SchemaVersionError
from hf_task2vec.files import write_json

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding

Array = NDArray[np.float64]

SCHEMA_VERSION = 1
#: The model shipped beside this module: trained for the default probe by ``benchmarks/relations.py --train``.
MODEL_FILE = "containment.json"
#: Weight of half the squared weights in the training loss.
L2 = 1e-3
# Statistics farther from the training pairs' mean than this many standard deviations say no more.
_CLIP = 5.0


@dataclass(frozen=True, eq=False)
class ContainmentModel:
    """A logistic regression on statistics of two tasks and their products.

    Attributes
    ----------
    weights_hash
        SHA-256 of the weights of the probe that it was trained with.
    centre, scale
        Shape (12,): mean and standard deviation of the statistics among training pairs.
    weights
        Shape (90,): of the 12 standardised statistics and their 78 products.
    bias
        Log-odds of a pair whose statistics are all at the mean.
    threshold
        Probability from which a pair counts as containment: the one of largest F1 among the training pairs.
    training
        What it was trained on.
    """

    weights_hash: str
    centre: Array
    scale: Array
    weights: Array
    bias: float
    threshold: float
    training: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, statistics: Array, contained: NDArray[np.bool_], weights_hash: str, *, counts: Array | None = None,
        l2: float = L2, training: dict[str, Any] | None = None,
    ) -> ContainmentModel:  # fmt: skip
        """Learn from pairs.

        Parameters
        ----------
        statistics
            Shape (N, 12); see :func:`pair_statistics`.
        contained
            Shape (N,): whether the general task of the pair contains the special one.
        weights_hash
            SHA-256 of the probe's weights.
        counts
            Shape (N,), > 0: how many pairs each stands for, where others were left out; by default one.
        l2
            Weight of half the squared weights beside the mean loss.
        training
            What to keep beside the model as a report.

        Raises
        ------
        MetricError
            The shapes differ, numbers are not finite, or all pairs are of one kind.
        """
        x, y = np.asarray(statistics, dtype=np.float64), np.asarray(contained, dtype=np.bool_)
        if x.shape != (len(y), len(STATISTICS)) or not np.isfinite(x).all():
            raise MetricError(f"the statistics must be finite, of shape ({len(y)}, {len(STATISTICS)}), found {x.shape}")
        if y.all() or not y.any():
            raise MetricError(
                "all training pairs are of one kind; give pairs that are containment and pairs that are not"
            )
        counts = np.ones(len(y)) if counts is None else np.asarray(counts, dtype=np.float64)
        shares = counts / counts.sum()
        centre, scale = shares @ x, _deviation(x, shares)
        weights, bias = _logistic(_products((x - centre) / scale), y, shares, l2)
        untuned = cls(weights_hash, centre, scale, weights, bias, 0.5, dict(training or {}))
        threshold = f1_threshold(untuned.probabilities(x), y, counts)
        return cls(weights_hash, centre, scale, weights, bias, threshold, untuned.training)

    def probabilities(self, statistics: Array) -> Array:
        """Return the probability of containment, shape (...), of statistics, shape (..., 12).

        The odds are those of the training pairs, of which few are containment: a probability says more by its rank and
        by `threshold` than by itself.
        """
        found = sigmoid(_products((statistics - self.centre) / self.scale) @ self.weights + self.bias)
        return np.asarray(found, dtype=np.float64)

    def scores(self, general: Sequence[TaskEmbedding], special: Sequence[TaskEmbedding]) -> Array:
        """Return the probability that each of n general tasks contains each of m special ones, shape (n, m).

        Raises
        ------
        ProbeMismatchError
            An embedding comes from another probe than the model's.
        EmbeddingError
            There are no embeddings, or one lacks a descriptor.
        """
        statistics = pair_statistics(general, special)
        if general[0].weights_hash != self.weights_hash:
            raise ProbeMismatchError(
                f"{general[0].name!r} was embedded with probe {general[0].probe['name']!r} (weights "
                f"{general[0].weights_hash[:12]}…), but the containment model was trained with weights "
                f"{self.weights_hash[:12]}…; embed with that probe (the default one, for the shipped model) or fit a "
                "model of your own"
            )
        return self.probabilities(statistics)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as JSON, atomically."""
        numbers = {name: getattr(self, name).tolist() for name in ("centre", "scale", "weights")}
        scalars = {"bias": self.bias, "threshold": self.threshold, "half_side": HALF_SIDE}
        document = {"schema_version": SCHEMA_VERSION, "weights_hash": self.weights_hash, "statistics": list(STATISTICS)}
        write_json(path, {**document, **scalars, **numbers, "training": self.training})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ContainmentModel:
        """Read a model that :meth:`save` wrote.

        Raises
        ------
        SchemaVersionError
            The file was written by another version of the format, or reads other statistics.
        MetricError
            The file is missing or malformed.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise MetricError(f"the containment model {path} cannot be read: {error}") from error
        found = document if isinstance(document, dict) else {}
        version = found.get("schema_version"), found.get("statistics"), found.get("half_side")
        if version != (SCHEMA_VERSION, list(STATISTICS), HALF_SIDE):
            raise SchemaVersionError(
                f"{path} has schema version {version[0]!r} or reads other statistics than this version of hf_task2vec "
                f"({SCHEMA_VERSION}); train it again with benchmarks/relations.py"
            )
        return _parsed(path, found)


def _parsed(path: Any, document: dict[str, Any]) -> ContainmentModel:
    p = len(STATISTICS)
    shapes = {"centre": (p,), "scale": (p,), "weights": (p + p * (p + 1) // 2,), "bias": (), "threshold": ()}
    try:
        arrays = {name: np.array(document[name], dtype=np.float64) for name in shapes}
        weights_hash, training = str(document["weights_hash"]), dict(document["training"])
    except (KeyError, TypeError, ValueError) as error:
        raise MetricError(f"the containment model {path} is malformed: {error!r}") from None
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise MetricError(f"the containment model {path} is malformed: {name} must be finite, of shape {shape}")
    if (arrays["scale"] <= 0).any() or not 0.0 <= arrays["threshold"] <= 1.0:
        raise MetricError(f"the containment model {path} is malformed: scale must be > 0, threshold in [0, 1]")
    bias, threshold = float(arrays["bias"]), float(arrays["threshold"])
    return ContainmentModel(
        weights_hash, arrays["centre"], arrays["scale"], arrays["weights"], bias, threshold, training
    )


def _products(z: Array) -> Array:
    """Append the products of all pairs of statistics, squares included: (..., P) to (..., P + P (P + 1) / 2)."""
    z = np.clip(z, -_CLIP, _CLIP)
    first, second = np.triu_indices(z.shape[-1])
    return np.concatenate([z, z[..., first] * z[..., second]], axis=-1)


def _deviation(x: Array, shares: Array) -> Array:
    return np.maximum(np.sqrt(shares @ (x - shares @ x) ** 2), 1e-9)


def _logistic(x: Array, y: NDArray[np.bool_], shares: Array, l2: float) -> tuple[Array, float]:
    """Penalised logistic regression; columns are brought to one scale for the penalty only."""
    from scipy.optimize import minimize

    spread = _deviation(x, shares)
    x = x / spread

    def objective(flat: Array) -> tuple[float, Array]:
        weights, logits = flat[:-1], x @ flat[:-1] + flat[-1]
        loss = float(shares @ (np.logaddexp(0.0, logits) - y * logits) + 0.5 * l2 * weights @ weights)
        residual = shares * (sigmoid(logits) - y)
        return loss, np.append(x.T @ residual + l2 * weights, residual.sum())

    found = minimize(objective, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return found[:-1] / spread, float(found[-1])


def f1_threshold(scores: Array, contained: NDArray[np.bool_], counts: Array | None = None) -> float:
    """Return the score from which to say "contained" for the largest F1, of N pairs that stand for `counts` pairs."""
    counts = np.ones(len(scores)) if counts is None else counts
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum((counts * contained)[order])
    f1 = 2.0 * found / (np.cumsum(counts[order]) + found[-1])
    # Equal scores stand or fall together.
    last = np.append(np.diff(scores[order]) != 0, True)
    return float(scores[order][np.where(last, f1, -1.0).argmax()])


@lru_cache(maxsize=1)
def default_model() -> ContainmentModel:
    """Return the model shipped with the package, for the default probe."""
    return ContainmentModel.load(Path(__file__).with_name(MODEL_FILE))


def containment_scores(
    general: Sequence[TaskEmbedding], special: Sequence[TaskEmbedding], model: ContainmentModel | None = None
) -> Array:
    """Return the probability that each of n tasks contains each of m others, shape (n, m).

    Errors are those of :meth:`ContainmentModel.scores`; `model` is by default the shipped one, whose ``threshold`` says
    from which probability a pair counts as containment.
    """
    return (model or default_model()).scores(general, special)


def contains(general: TaskEmbedding, special: TaskEmbedding, model: ContainmentModel | None = None) -> float:
    """Return the probability that task `general` has all classes of task `special` and more, in [0, 1].

    Errors and `model` are those of :func:`containment_scores`.
    """
    return float(containment_scores([general], [special], model)[0, 0])
