"""Brute force for the Fisher information: one Jacobian of the logits for every example, and a sum over all classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from hf_task2vec.fisher.head import Head
from hf_task2vec.probes.layers import FilterLayer, trace_layers


@dataclass
class Bare:
    """What `diagonal_fisher` reads of a probe, so that networks can be in double precision."""

    module: nn.Module
    layers: tuple[FilterLayer, ...]


def bare(module: nn.Module, images: Tensor) -> Bare:
    module = module.to(images.dtype).eval().requires_grad_(False)
    return Bare(module, trace_layers(module, images[:1]).layers)


def brute_force(probe: Bare, images: Tensor, head: Head) -> np.ndarray:
    """Mean over examples of ``Σ_y p(y|x) (∂ log p(y|x) / ∂w)²``, then over each filter's weights."""
    weight, bias = torch.from_numpy(head.weight), torch.from_numpy(head.bias)
    weights = weights_of(probe)

    def logits(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        features = functional_call(probe.module, parameters, (image[None].clone(),))[0]
        return features.double() @ weight.T + bias

    def log_likelihoods(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        """Log-probabilities of every outcome: classes, or each label's absence and presence."""
        z = logits(parameters, image)
        if head.likelihood == "categorical":
            return torch.log_softmax(z, 0)
        return torch.cat([nn.functional.logsigmoid(-z), nn.functional.logsigmoid(z)])

    total = 0.0
    for image in images:
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no batching rule
            p = log_likelihoods(weights, image).exp()
            jacobian = jacrev(log_likelihoods)(weights, image)
        # Labels are independent, and their scores have mean zero: squares of sums are sums of squares.
        squares = [torch.einsum("o,of->f", p, jacobian[name].square().flatten(2).mean(2)) for name in weights]
        total = total + torch.cat(squares).numpy()
    return total / len(images)


def weights_of(probe: Bare) -> dict[str, Tensor]:
    """Weight parameters of the covered layers, in embedding order."""
    names = dict(probe.module.named_parameters())
    return {
        name: names[name]
        for name in (layer.name if layer.name in names else f"{layer.name}.weight" for layer in probe.layers)
    }


def batches(images: Tensor, size: int = 3, order: np.ndarray | None = None) -> Iterator[tuple[Tensor, np.ndarray]]:
    order = np.arange(len(images)) if order is None else order
    for start in range(0, len(images), size):
        ids = order[start : start + size]
        yield images[ids].clone(), ids


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_head(dim: int, classes: int = 4, likelihood: str = "categorical") -> Head:
    rng = np.random.default_rng(1)
    return Head(rng.normal(size=(classes, dim)) / np.sqrt(dim), rng.normal(size=classes), likelihood)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fill weights with noise of unit gain and BatchNorms with values far from their initial ones."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.data.normal_(0, fan_in**-0.5, generator=generator)
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.running_mean.normal_(generator=generator)
            child.running_var.uniform_(0.5, 2, generator=generator)
    return module
