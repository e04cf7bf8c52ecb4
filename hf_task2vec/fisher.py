"""Per-filter diagonal Fisher information of a probe network (Achille et al. 2019, arXiv 1902.03545, section 2).

``F_i = E_x E_{y~p(y|x)} [ (∂ log p(y|x) / ∂w_i)² ]`` for every weight of the extractor, averaged over the weights of a
filter: labels come from the model's own output and the square is taken per example, before any sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hf_task2vec.capture import SquareCapture
from hf_task2vec.errors import FisherError, UnsupportedLayerError
from hf_task2vec.layers import FilterLayer
from hf_task2vec.seeds import LIKELIHOODS, SAMPLINGS, logit_seeds

if TYPE_CHECKING:
    from hf_task2vec.head import Head
    from hf_task2vec.probe import Probe


@dataclass(frozen=True)
class FisherSums:
    """Sums over examples, ready to be added across processes and divided once.

    Attributes
    ----------
    layers
        The covered layers, in embedding order.
    sums
        Shape (2, n_filters), float64: squared gradients summed over a filter's weights and over the examples of
        either half. The two halves tell how noisy the estimate is.
    counts
        Shape (2,), int64: examples in each half.
    """

    layers: tuple[FilterLayer, ...]
    sums: np.ndarray
    counts: np.ndarray

    def mean(self) -> np.ndarray:
        """Per-filter mean Fisher information, shape (n_filters,), float64."""
        return self._divide(self.sums.sum(axis=0), int(self.counts.sum()))

    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the estimates of the two halves, each of shape (n_filters,)."""
        return self._divide(self.sums[0], int(self.counts[0])), self._divide(self.sums[1], int(self.counts[1]))

    def __add__(self, other: FisherSums) -> FisherSums:
        if self.layers != other.layers:
            raise FisherError("sums of different networks or layers cannot be added")
        return FisherSums(self.layers, self.sums + other.sums, self.counts + other.counts)

    def _divide(self, total: np.ndarray, count: int) -> np.ndarray:
        if count == 0:
            raise FisherError("no examples were seen: the Fisher information needs at least one image (two for halves)")
        weights = np.repeat(
            [layer.weights_per_filter for layer in self.layers], [layer.n_filters for layer in self.layers]
        )
        return total / (weights * count)


@torch.inference_mode(False)
def diagonal_fisher(
    probe: Probe,
    batches: Iterable[tuple[Tensor, np.ndarray]],
    *,
    head: Head,
    label_sampling: str = "sketch",
    draws: int = 1,
    seed: int = 0,
    labels: np.ndarray | None = None,
    halves: np.ndarray | None = None,
    weights: Mapping[str, Tensor] | None = None,
    fold_batch_norm: bool = True,
) -> FisherSums:
    """Sum the per-filter squared gradients of the log-likelihood over examples.

    Parameters
    ----------
    probe
        The probe network.
    batches
        Pairs of images, shape (B, 3, H, W), and example ids, shape (B,) int64. An example's random draws depend on
        its id alone, so the result does not depend on batch size, order or number of processes beyond rounding.
    head
        The fitted linear head; its likelihood (categorical, Bernoulli or Gaussian) defines the Fisher information.
    label_sampling
        ``"sketch"`` (one backward pass whatever the number of classes, unbiased, lowest variance), ``"exact"``
        (C − 1 backward passes, no sampling), ``"monte_carlo"`` (the paper's: labels drawn from the output) or
        ``"empirical"`` (the task's `labels` in place of drawn ones: where the head fits them well, little is left).
    draws
        Independent draws per example for the two random samplings.
    seed
        Seed of the draws.
    labels
        Only for ``"empirical"``: labels indexed by id, as :func:`~hf_task2vec.head.fit_head` takes them.
    halves
        Half (0 or 1) of every example, indexed by id; by default the parity of the id. Halves should hold the same
        mix of classes.
    weights
        Weights at which to take the Fisher information in place of the network's own, by layer name.
    fold_batch_norm
        Run a convolution and the BatchNorm that alone reads it as one convolution. The result refers to the original
        weights either way and agrees up to rounding; folding is faster.

    Returns
    -------
    FisherSums
        Sums and counts, zero if there were no images; ``.mean()`` is the embedding.

    Raises
    ------
    FisherError
        Unknown `label_sampling` or likelihood, no draws, missing labels, or non-finite outputs or gradients.
    UnsupportedLayerError
        An activation needed for a gradient was overwritten in place, or the network cuts gradients off.
    """
    if label_sampling not in SAMPLINGS:
        raise FisherError(f"label_sampling={label_sampling!r} is unknown; choose one of {', '.join(SAMPLINGS)}")
    if draws < 1:
        raise FisherError(f"draws={draws}: give at least 1")
    if head.likelihood not in LIKELIHOODS:
        raise FisherError(f"likelihood {head.likelihood!r} is unknown; choose one of {', '.join(LIKELIHOODS)}")
    if label_sampling == "empirical" and labels is None:
        raise FisherError("label_sampling='empirical' needs the labels: pass labels, indexed by example id")
    draw = {"sampling": label_sampling, "seed": seed, "draws": draws, "labels": labels}
    capture = SquareCapture(probe.module, probe.layers, fold_batch_norm, weights or {})
    for images, ids in batches:
        ids = np.asarray(ids, dtype=np.int64)
        if len(ids) == 0:
            continue
        half = ids % 2 if halves is None else halves[ids]
        capture.half = torch.as_tensor(half, dtype=torch.int64, device=images.device)
        # Under the caller's autocast, half-precision squares would underflow.
        with torch.autocast(images.device.type, enabled=False):
            with capture, torch.enable_grad():
                features = probe.module(images.clone() if images.is_inference() else images)
            if not features.requires_grad:
                raise UnsupportedLayerError(
                    "no gradient leads from the features back to any covered layer; remove .detach() and "
                    "torch.no_grad() from the network's forward"
                )
            gradients = _feature_gradients(head, features.detach(), ids, draw)
            for i, gradient in enumerate(gradients):
                # The same as autograd.backward(features, gradient), which would import a computer algebra system first.
                with torch.enable_grad():
                    product = torch.sum(features * gradient)
                product.backward(retain_graph=i + 1 < len(gradients))
        capture.counts += np.bincount(half, minlength=2)
    sums = capture.result()
    if not np.isfinite(sums).all():
        worst = capture.first_non_finite(sums)
        raise FisherError(f"the gradients of layer {worst!r} are not finite; check that the probe's weights are sound")
    return FisherSums(probe.layers, sums, capture.counts)


def _feature_gradients(head: Head, features: Tensor, ids: np.ndarray, draw: dict[str, Any]) -> list[Tensor]:
    """Gradients with respect to the features, one per logit seed: the head is linear, so they need no graph."""
    z = features.cpu().numpy().astype(np.float64)
    if not np.isfinite(z).all():
        raise FisherError("the probe's features are not finite; check its weights and the images' preprocessing")
    logits = head.logits(z)
    if not np.isfinite(logits).all():
        raise FisherError("the head's logits are not finite; fit it on finite features")
    seeds = logit_seeds(head.likelihood, logits, ids, variance=head.variance, **draw)
    gradients = torch.from_numpy(seeds @ head.weight)
    return list(gradients.to(device=features.device, dtype=features.dtype))
