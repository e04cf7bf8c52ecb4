"""What a probe sees on the way to its features: pooled activations at a third and at two thirds of its depth.

Where a linear probe on them does better than one on the features, a task is far from what the probe was trained on
(Yosinski et al. 2014; Raghu et al. 2019 of medical images), which the Fisher information alone hardly tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hf_task2vec.errors import ProbeError
from hf_task2vec.probes.layers import CallInterceptor, FilterLayer, weight_owners
from hf_task2vec.probes.probe import Probe

#: Shares of the covered layers, in embedding order, after which activations are read.
DEPTHS = (1 / 3, 2 / 3)


class IntermediateReader(CallInterceptor):
    """Reads what enters the covered layers at `DEPTHS`, as means and standard deviations over positions."""

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self.probe = probe
        names = [layer.name for layer in depth_layers(probe.layers)]
        owners = {name: weight for weight, name in weight_owners(probe.module).items()}
        self._wanted = [owners[name] for name in names]
        self._names = dict(zip(self._wanted, names, strict=True))
        self._seen: dict[int, Tensor] = {}
        self._n = 0

    def filter_call(self, kind: str, func: Any, call: dict[str, Any]) -> Tensor:
        """Read the input of a wanted layer."""
        weight = id(call["weight"])
        if weight in self._names:
            self._seen[weight] = pooled(kind, call["input"].detach(), self._n, self._names[weight])
        output: Tensor = func(**call)
        return output

    def read(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return features (B, d) and the pooled activations at each depth, (B, 2C) or (B, C), all float32."""
        self._n = len(images)
        self._seen.clear()
        with self:
            features = self.probe.features(images)
        return (features, *(self._seen[weight].to(torch.float32) for weight in self._wanted))


def depth_layers(layers: Sequence[FilterLayer]) -> list[FilterLayer]:
    """Return the layers whose inputs are read."""
    return [layers[min(round(share * len(layers)), len(layers) - 1)] for share in DEPTHS]


def pooled(kind: str, x: Tensor, n: int, name: str) -> Tensor:
    """Mean and standard deviation of each channel over the positions of each of `n` examples, shape (n, 2C).

    A linear layer without positions gives its input itself, shape (n, C).
    """
    channels = x if kind == "linear" else x.movedim(1, -1)
    if len(x) != n:  # windows or patches of each example
        if len(x) % n:
            raise ProbeError(f"layer {name!r} got {len(x)} inputs for a batch of {n} images")
        channels = channels.unflatten(0, (n, -1))
    if channels.dim() == 2:
        return channels
    flat = channels.flatten(1, -2)
    mean = flat.mean(dim=1, keepdim=True)
    std = (flat - mean).square_().mean(dim=1).sqrt()  # torch.std_mean is 20 times slower across rows
    return torch.cat([mean[:, 0], std], dim=1)
