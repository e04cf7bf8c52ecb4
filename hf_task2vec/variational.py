"""The paper's second estimator: the noise that each filter bears (Achille et al. 2019, arXiv 1902.03545, section 2).

Perturb every filter's weights with Gaussian noise of one variance σ_c² per filter and find the noise that balances

    E_{w ~ N(ŵ, Σ)} [ −log p(y|x) ]  +  β · KL( N(0, Σ) ‖ N(0, λ²) )

per example. At the optimum ``F_c = β (1/σ_c² − 1/λ²)`` for a likelihood quadratic in the weights, so the estimate is
the Fisher information smoothed over a neighbourhood of the weights. It is optimised with the local reparametrisation
trick (Kingma et al. 2015): with one variance per filter, the noise of an output is ``σ_c · ‖patch‖ · ε``, so that a
layer costs one extra single-channel convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from hf_task2vec.errors import FisherError
from hf_task2vec.layers import CallInterceptor, FilterLayer, weight_owners

if TYPE_CHECKING:
    from hf_task2vec.head import Head
    from hf_task2vec.probe import Probe


def variational_fisher(
    probe: Probe,
    batches: Sequence[tuple[Tensor, np.ndarray]] | Any,
    *,
    head: Head,
    labels: np.ndarray,
    beta: float = 1e-4,
    prior_scale: float = 1.0,
    steps: int = 200,
    learning_rate: float = 0.1,
    seed: int = 0,
    progress: bool = False,
) -> np.ndarray:
    """Estimate the per-filter Fisher information by the noise that the filters bear.

    Schedule: Adam on ``log σ_c²`` for `steps` mini-batches, the learning rate falling to zero along a cosine; networks
    in eval mode, so BatchNorm uses its running statistics. Noise starts at a tenth of the prior's.

    Parameters
    ----------
    probe, head
        As in :func:`~hf_task2vec.fisher.diagonal_fisher`.
    batches
        Iterable, many times over, of images (B, 3, H, W) and example ids (B,).
    labels
        The task's labels by example id: classes, shape (N,), or 0/1, shape (N, C).
    beta
        Weight β of the divergence, per example and weight: more of it, less noise.
    prior_scale
        λ in units of the root mean square of each layer's weights.
    steps, learning_rate, seed
        The schedule.
    progress
        Show a progress bar on stderr.

    Returns
    -------
    ndarray
        Shape (n_filters,), float64, ≥ 0, in the unit of the Fisher information up to smoothing.

    Raises
    ------
    FisherError
        The loss became non-finite.
    """
    generator = torch.Generator(device=probe.device).manual_seed(seed)
    noise = _Noise(probe, prior_scale, generator)
    optimiser = torch.optim.Adam(noise.log_ratios, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    weight = torch.tensor(head.weight, dtype=torch.float32, device=probe.device)
    bias = torch.tensor(head.bias, dtype=torch.float32, device=probe.device)
    targets = torch.as_tensor(labels, device=probe.device)
    done = 0
    with tqdm(total=steps, desc="variational", disable=not progress, leave=False) as bar:
        while done < steps:
            for images, ids in batches:
                if done == steps:
                    break
                with noise, torch.enable_grad():
                    logits = probe.module(images) @ weight.T + bias
                    loss = _negative_log_likelihood(logits, targets[torch.as_tensor(ids, device=targets.device)])
                    total = loss + beta * noise.divergence()
                if not bool(torch.isfinite(total)):
                    raise FisherError(
                        f"the variational loss became non-finite at step {done}; lower learning_rate or prior_scale"
                    )
                optimiser.zero_grad(set_to_none=True)
                total.backward()
                optimiser.step()
                schedule.step()
                done += 1
                bar.update()
    return noise.fisher(beta)


def _negative_log_likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.dim() == 2:
        return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum") / len(logits)
    return F.cross_entropy(logits, targets)


class _Noise(CallInterceptor):
    """Adds to the output of every covered layer the noise that Gaussian weights would cause."""

    def __init__(self, probe: Probe, prior_scale: float, generator: torch.Generator) -> None:
        super().__init__()
        owners = {name: weight for weight, name in weight_owners(probe.module).items()}
        parameters = {id(p): p for p in probe.module.parameters()}
        self._layers: dict[int, tuple[FilterLayer, Tensor, float]] = {}
        self.log_ratios: list[Tensor] = []  # log(σ²/λ²), one tensor a layer
        self._generator = generator
        for layer in probe.layers:
            weight = parameters[owners[layer.name]]
            prior = prior_scale**2 * float(weight.detach().double().square().mean())
            start = torch.full((layer.n_filters,), float(np.log(0.01)), device=weight.device, requires_grad=True)
            self._layers[id(weight)] = (layer, start, max(prior, 1e-12))
            self.log_ratios.append(start)
        self._module = probe.module  # keeps the parameters, hence the ids, alive

    def filter_call(self, kind: str, func: Any, call: dict[str, Any]) -> Tensor:
        output: Tensor = func(**call)
        found = self._layers.get(id(call["weight"]))
        if found is None:
            return output
        layer, log_ratio, prior = found
        squares = call["input"].square()
        if kind == "linear":
            norms = squares.sum(dim=-1, keepdim=True)
            deviation = torch.exp(0.5 * log_ratio)
        else:
            weight = call["weight"]
            ones = torch.ones(call["groups"], *weight.shape[1:], dtype=weight.dtype, device=weight.device)
            norms = func(**{**call, "input": squares, "weight": ones, "bias": None})
            norms = norms.repeat_interleave(layer.n_filters // call["groups"], dim=1) if call["groups"] > 1 else norms
            deviation = torch.exp(0.5 * log_ratio).view(1, -1, *[1] * (weight.dim() - 2))
        epsilon = torch.randn(output.shape, generator=self._generator, device=output.device, dtype=output.dtype)
        return output + deviation * (prior * norms + 1e-12).sqrt() * epsilon

    def divergence(self) -> Tensor:
        """KL(N(0, Σ) ‖ N(0, λ²)), summed over all weights."""
        total = torch.zeros((), device=self.log_ratios[0].device)
        for layer, log_ratio, _ in self._layers.values():
            total = total + 0.5 * layer.weights_per_filter * (log_ratio.exp() - 1.0 - log_ratio).sum()
        return total

    def fisher(self, beta: float) -> np.ndarray:
        """β (1/σ² − 1/λ²) for every filter; noise above the prior's counts as no information."""
        parts = []
        for _, log_ratio, prior in self._layers.values():
            ratio = log_ratio.detach().double().exp().cpu().numpy()
            parts.append(np.maximum(beta / prior * (1.0 / ratio - 1.0), 0.0))
        return np.concatenate(parts)
