"""The linear head that turns a probe's features into a likelihood for the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import FisherError
from hf_task2vec.fisher.cotangents import sigmoid, softmax

Array = NDArray[np.float64]

#: Regularisation strength of logistic heads, by held-out loss on real tasks.
L2 = 1e-4


@dataclass(frozen=True, eq=False)
class Head:
    """A linear map from features to logits."""

    weight: Array
    bias: Array
    """Shapes (C, d) and (C,), float64."""
    likelihood: str = "categorical"
    """``"categorical"`` (softmax over C classes) or ``"bernoulli"`` (C independent sigmoids, multi-label)."""

    def logits(self, features: Array) -> Array:
        """Return logits, shape (N, C), of features, shape (N, d)."""
        return features @ self.weight.T + self.bias

    def probabilities(self, features: Array) -> Array:
        """Return p(y|x), shape (N, C)."""
        logits = self.logits(features)
        return softmax(logits) if self.likelihood == "categorical" else sigmoid(logits)

    def predict(self, features: Array) -> NDArray[Any]:
        """Return the likeliest class, shape (N,), or the 0/1 label matrix, shape (N, C)."""
        logits = self.logits(features)
        return logits.argmax(axis=1) if self.likelihood == "categorical" else (logits > 0).astype(np.int64)


def fit_head(features: Array, labels: NDArray[Any], num_classes: int, *, l2: float = L2) -> Head:
    """Fit a regularised logistic regression on features, in float64.

    Minimises mean cross-entropy plus ``l2/2 ‖W‖²`` over standardised features ``X = (Z − μ)/σ`` (one scalar σ, so that
    the regularisation does not depend on the features' scale) with L-BFGS. With fewer examples than dimensions the
    problem is solved in the row space of X (a thin SVD), where the optimum lies.

    Parameters
    ----------
    features
        Shape (N, d).
    labels
        Shape (N,) with classes in [0, num_classes), or a 0/1 matrix, shape (N, num_classes), for multi-label tasks.
    num_classes
        C. A class without an example gets a low probability, not an error.
    l2
        Regularisation strength λ > 0.

    Returns
    -------
    Head
        In the units of `features`.

    Raises
    ------
    FisherError
        The features are not finite, or all equal up to rounding.
    """
    z = np.asarray(features, dtype=np.float64)
    if not np.isfinite(z).all():
        raise FisherError("the probe's features are not finite; check its weights and the images' preprocessing")
    mean = z.mean(axis=0)
    scale = float(np.sqrt(np.mean(np.sum((z - mean) ** 2, axis=1))))
    # Float32 networks give equal images features that differ by rounding.
    if scale <= 1e-6 * float(np.sqrt(np.mean(np.sum(z**2, axis=1)))):
        raise FisherError(
            f"the probe gives the same features for all {len(z)} images, so no head can be fitted; "
            "are the images identical, or is the checkpoint broken?"
        )
    x = (z - mean) / scale
    basis = None
    if len(x) < x.shape[1]:
        u, s, vt = np.linalg.svd(x, full_matrices=False)
        x, basis = u * s, vt
    multi_label = labels.ndim == 2
    targets = labels.astype(np.float64) if multi_label else np.eye(num_classes)[labels]
    w, b = _minimise(x, targets, l2, multi_label)
    if basis is not None:
        w = w @ basis
    return Head(w / scale, b - w @ mean / scale, "bernoulli" if multi_label else "categorical")


def _minimise(x: Array, targets: Array, l2: float, multi_label: bool) -> tuple[Array, Array]:
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    n, d = x.shape
    c = targets.shape[1]

    def objective(flat: Array) -> tuple[float, Array]:
        w, b = flat[: c * d].reshape(c, d), flat[c * d :]
        logits = x @ w.T + b
        if multi_label:
            loss = float(np.sum(np.logaddexp(0.0, logits) - targets * logits)) / n
            residual = (sigmoid(logits) - targets) / n
        else:
            normaliser = logsumexp(logits, axis=1, keepdims=True)
            loss = float(np.sum(normaliser) - np.sum(targets * logits)) / n
            residual = (np.exp(logits - normaliser) - targets) / n
        gradient = np.concatenate([(residual.T @ x + l2 * w).ravel(), residual.sum(axis=0)])
        return loss + 0.5 * l2 * float(np.sum(w * w)), gradient

    result = minimize(
        objective,
        np.zeros(c * (d + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 500, "gtol": 1e-6, "ftol": 1e-12},
    )
    return result.x[: c * d].reshape(c, d), result.x[c * d :]


def stratified_folds(labels: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Assign every example to a fold, shape (N,), spreading each class, or each set of labels (N, C), evenly."""
    if labels.ndim == 2:
        labels = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold_of = np.empty(len(labels), dtype=np.int64)
    fold_of[order] = np.arange(len(labels)) % folds
    return fold_of
