"""The plot of ``speed/fisher.py``, drawn from whatever parts its raw output has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

AXES = {"classes": "classes", "size": "image side, px", "batch": "batch size"}
MARKS = {
    "sketch": ("o", "this package"),
    "batch_mean_loop": ("v", "original loop\n(not the Fisher\ninformation)"),
    "vmap_grad": ("s", "vmap(grad)"),
    "backpack": ("D", "BackPACK"),
    "nngeometry": ("^", "nngeometry, exact"),
}
SHORT = {
    "tf_efficientnet_lite0": "Lite0",
    "resnet18": "ResNet-18",
    "vit_tiny_patch16_224": "ViT-tiny",
    "convnext_atto": "ConvNeXt-atto",
}


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw up to six panels: cost against classes, image side, batch and images; memory; ratios by network."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(13, 7), constrained_layout=True)
    scaling = result.get("scaling", {})
    for panel, axis in zip(panels.flat, AXES, strict=False):
        if axis in scaling:
            _per_image(panel, axis, scaling[axis])
    if "images" in scaling:
        _images(panels[1, 0], scaling["images"])
    if "memory" in result:
        _memory(panels[1, 1], result["memory"])
    if "models" in result:
        _ratios(panels[1, 2], result["models"])
    for panel in panels.flat:
        if not panel.has_data():
            panel.set_axis_off()
    figure.suptitle(f"Cost of the Fisher sketch ({result['device']}); curves: EfficientNet-Lite0")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _per_image(panel: Axes, axis: str, points: list[dict[str, float]]) -> None:
    x, y = [p[axis] for p in points], [1000 * p["seconds_per_image"] for p in points]
    panel.plot(x, y, marker="o")
    panel.set_xscale("log", base=2 if axis != "classes" else 10)
    panel.set_ylim(0, 1.15 * max(y))
    panel.set(xlabel=AXES[axis], ylabel="ms per image", title=f"against {AXES[axis].split(',')[0]}")
    panel.set_xticks(x, [str(value) for value in x])
    panel.minorticks_off()
    panel.grid(alpha=0.3)


def _images(panel: Axes, points: list[dict[str, float]]) -> None:
    x, y = [p["images"] for p in points], [p["seconds"] for p in points]
    slope = float(np.dot(x, y) / np.dot(x, x))
    panel.plot(x, y, "o", label="measured")
    panel.plot([0, x[-1]], [0, slope * x[-1]], "-", color="0.6", zorder=0, label=f"{1000 * slope:.0f} ms x images")
    panel.set(xlabel="images", ylabel="seconds in all", title="against images", ylim=(0, None), xlim=(0, None))
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, loc="upper left")


def _memory(panel: Axes, memory: dict[str, Any]) -> None:
    for i, (model, found) in enumerate(memory.items()):
        for method, style, name in (("plain", "--", "plain pass"), ("sketch", "-", "this package")):
            slope = found[method]["mib_per_image"]
            label = f"{SHORT.get(model, model)}, {name}: {slope:.0f} MiB an image"
            panel.plot(found["batch"], found[method]["peak_mib"], style, marker=".", color=f"C{i}", label=label)
    panel.set(xlabel="batch size", ylabel="peak memory, MiB", title="memory")
    panel.set_ylim(0, 1.7 * panel.get_ylim()[1])
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize=8, loc="upper left")


def _ratios(panel: Axes, models: dict[str, Any]) -> None:
    for i, entry in enumerate(models.values()):
        found = {**entry.get("peers", {}), "sketch": entry["methods"]["sketch"]}
        for method, (mark, name) in MARKS.items():
            style = {"color": "C0", "markersize": 8} if method == "sketch" else {"color": "0.45", "markersize": 6}
            ratio = [found[method]["ratio"]] if method in found else []
            panel.plot(ratio, [i] * len(ratio), mark, **style, label=name if i == 0 else None)
        if entry["target"]:
            panel.plot([entry["target"]] * 2, [i - 0.3, i + 0.3], color="C3", label="target" if i == 0 else None)
    panel.axvline(1.0, color="0.8", zorder=0)
    panel.set_xscale("log")
    panel.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    panel.minorticks_off()
    panel.set_yticks(range(len(models)), [SHORT.get(name, name) for name in models])
    panel.set_ylim(len(models) + 2.2, -0.6)
    panel.set(xlabel="time / plain forward and backward pass", title="by network, other libraries")
    panel.legend(frameon=False, fontsize=7.5, loc="lower left", ncols=2)
