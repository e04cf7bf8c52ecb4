"""Per-filter diagonal Fisher information of a probe network (Achille et al. 2019, arXiv 1902.03545, section 2).

``F_i = E_x E_{y~p(y|x)} [ (∂ log p(y|x) / ∂w_i)² ]`` for every weight of the extractor, averaged over the weights of a
filter: labels come from the model's own output and the square is taken per example, before any sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hf_task2vec.errors import FisherError, ProbeError
from hf_task2vec.fisher.capture import SquareCapture, in_full
from hf_task2vec.fisher.cotangents import LIKELIHOODS, SAMPLINGS, logit_cotangents
from hf_task2vec.probes import FilterLayer, full_precision, send

if TYPE_CHECKING:
    from hf_task2vec.fisher.head import Head
    from hf_task2vec.probes import Probe


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
    seed: int = 0,
    halves: np.ndarray | None = None,
    features: np.ndarray | None = None,
) -> FisherSums:
    """Sum the per-filter squared gradients of the log-likelihood over examples.

    On CUDA each layer's kernel is chosen by time when its shape is first seen in the process (see
    `hf_task2vec.fisher.autotune`); with known `features`, the host then waits for the device once, at the end.

    Parameters
    ----------
    probe
        The probe network.
    batches
        Pairs of images, shape (B, 3, H, W), and example ids, shape (B,) int64. An example's random draws depend on
        its id alone, so the result does not depend on batch size, order or number of processes beyond rounding.
    head
        The fitted linear head; its likelihood (categorical or Bernoulli) defines the Fisher information.
    label_sampling
        ``"sketch"`` (one backward pass whatever the number of classes, unbiased, lowest variance), ``"exact"``
        (C − 1 backward passes, no sampling) or ``"monte_carlo"`` (the paper's: a label drawn from the output).
    seed
        Seed of the draws.
    halves
        Half (0 or 1) of every example, indexed by id; by default the parity of the id. Halves should hold the same
        mix of classes.
    features
        The probe's features where they are known, shape (M, d), indexed by id: the head's outputs are taken from them.
        Without, every batch waits until its own are on the host.

    Returns
    -------
    FisherSums
        Sums and counts, zero if there were no images; ``.mean()`` is the embedding.

    Raises
    ------
    FisherError
        Unknown `label_sampling` or likelihood, features of another dimension than the head's, or non-finite outputs
        or gradients.
    ProbeError
        An activation needed for a gradient was overwritten in place, or the network cuts gradients off.
    """
    if label_sampling not in SAMPLINGS:
        raise FisherError(f"label_sampling={label_sampling!r} is unknown; choose one of {', '.join(SAMPLINGS)}")
    if head.likelihood not in LIKELIHOODS:
        raise FisherError(f"likelihood {head.likelihood!r} is unknown; choose one of {', '.join(LIKELIHOODS)}")
    if features is not None:
        if features.ndim != 2 or features.shape[1] != head.weight.shape[1]:
            raise FisherError(f"the features have shape {features.shape}; the head needs (M, {head.weight.shape[1]})")
        _check_finite(features)
    capture = SquareCapture(probe.module, probe.layers)
    for images, ids in batches:
        ids = np.asarray(ids, dtype=np.int64)
        if len(ids) == 0:
            continue
        half = ids % 2 if halves is None else halves[ids]
        capture.half = send(torch.as_tensor(half, dtype=torch.int64), images.device)
        with capture, torch.enable_grad(), full_precision(images.device):
            outputs = probe.module(images.clone() if images.is_inference() else images)
        if not outputs.requires_grad:
            raise ProbeError(
                "no gradient leads from the features back to any covered layer; remove .detach() and "
                "torch.no_grad() from the network's forward"
            )
        if features is None:
            z = in_full(outputs.detach()).cpu().numpy()
            _check_finite(z)
        else:
            z = features[ids]
            capture.watch(outputs)
        gradients = send(
            _feature_gradients(head, z, ids, label_sampling, seed).to(in_full(outputs).dtype), images.device
        )
        with full_precision(images.device):
            for i, gradient in enumerate(gradients):
                # The same as autograd.backward(outputs, gradient), which would import a computer algebra system first.
                with torch.enable_grad():
                    product = torch.sum(outputs * gradient)
                product.backward(retain_graph=i + 1 < len(gradients))
        capture.counts += np.bincount(half, minlength=2)
    sums, sound = capture.result()
    if not sound:
        raise FisherError(_NOT_FINITE)
    if not np.isfinite(sums).all():
        worst = capture.first_non_finite(sums)
        raise FisherError(f"the gradients of layer {worst!r} are not finite; check that the probe's weights are sound")
    return FisherSums(probe.layers, sums, capture.counts)


_NOT_FINITE = "the probe's features are not finite; check its weights and the images' preprocessing"


def _check_finite(z: np.ndarray) -> None:
    if not np.isfinite(z).all():
        raise FisherError(_NOT_FINITE)


def _feature_gradients(head: Head, z: np.ndarray, ids: np.ndarray, sampling: str, seed: int) -> Tensor:
    """Gradients with respect to features `z` (B, d), shape (S, B, d): the head is linear, so they need no graph."""
    logits = head.logits(z.astype(np.float64))
    if not np.isfinite(logits).all():
        raise FisherError("the head's logits are not finite; fit it on finite features")
    cotangents = logit_cotangents(head.likelihood, logits, ids, sampling, seed=seed)
    return torch.from_numpy(cotangents @ head.weight)
