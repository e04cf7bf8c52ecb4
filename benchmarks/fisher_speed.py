"""What the per-filter Fisher information costs, against a plain forward and backward pass and other libraries.

    python benchmarks/fisher_speed.py [--device cpu|cuda] [--rounds 7] [--batch 8] [--peers]

All methods run in turn within one process on the same images, so that the ratios hold on a noisy machine; the median of
the rounds is reported with its range. The plain pass is what training would do: eval mode, NCHW, gradients of all
weights. Raw output: results/fisher_speed_<device>.json.

Peers (``pip install backpack-for-pytorch nngeometry``), each estimating a diagonal Fisher or Gauss-Newton matrix per
weight: ``vmap_grad`` (torch.func, one sampled label an image), ``backpack`` (DiagGGNMC, one draw), ``nngeometry`` (FIM,
exact) and ``batch_mean_loop`` (the loop of the original Task2Vec code: one sampled label an image, the square of the
batch's mean gradient, which is not the Fisher information; its cost is for one draw, and it is run for 10,000).
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from hf_task2vec.embed import library_versions
from hf_task2vec.fisher import diagonal_fisher
from hf_task2vec.head import Head
from hf_task2vec.layers import trace_layers

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("resnet18", "tf_efficientnet_lite0", "vit_tiny_patch16_224", "convnext_atto")
CLASSES = 10


class Case:
    """One network with a head of 10 classes and one batch of images."""

    def __init__(
        self, model: str, batch: int, device: torch.device, *, size: int = 224, classes: int = CLASSES
    ) -> None:
        torch.manual_seed(0)
        kwargs = {"img_size": size} if model.startswith("vit") and size != 224 else {}
        self.plain = timm.create_model(model, num_classes=classes, **kwargs).eval().to(device)
        self.extractor = timm.create_model(model, num_classes=0, **kwargs).eval().requires_grad_(False).to(device)
        self.extractor.load_state_dict(self.plain.state_dict(), strict=False)
        self.images = torch.randn(batch, 3, size, size, device=device)
        self.images_last = self.images.contiguous(memory_format=torch.channels_last)
        self.ids = np.arange(batch)
        self.labels = torch.arange(batch, device=device) % classes
        head = self.plain.get_classifier()
        self.head = Head(head.weight.detach().double().cpu().numpy(), head.bias.detach().double().cpu().numpy())
        self.probe: Any = SimpleNamespace(
            module=self.extractor, layers=trace_layers(self.extractor, self.images[:1]).layers
        )
        self.device = device

    def forward_backward(self) -> None:
        """The yardstick."""
        self.plain.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(self.plain(self.images), self.labels).backward()

    def sketch(self) -> None:
        """The estimator of this package."""
        diagonal_fisher(self.probe, [(self.images_last, self.ids)], head=self.head)

    def batch_mean_loop(self) -> None:
        """One draw of the original loop."""
        self.plain.zero_grad(set_to_none=True)
        logits = self.plain(self.images)
        labels = torch.distributions.Categorical(logits=logits.detach()).sample()
        nn.functional.cross_entropy(logits, labels).backward()
        for parameter in self.plain.parameters():
            if parameter.grad is not None:
                parameter.grad.square_()

    def vmap_grad(self) -> None:
        """Per-example gradients by torch.func."""
        from torch.func import functional_call, grad, vmap

        parameters = {k: v.detach() for k, v in self.plain.named_parameters()}
        buffers = dict(self.plain.named_buffers())

        def loss(p: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(functional_call(self.plain, (p, buffers), (x[None],)), y[None])

        squares = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, self.images, self.labels)
        for value in squares.values():
            value.square_().sum(0)

    def backpack(self) -> Callable[[], None]:
        """Prepare BackPACK's DiagGGNMC."""
        import copy

        from backpack import backpack, extend
        from backpack.extensions import DiagGGNMC

        model, loss = extend(copy.deepcopy(self.plain), use_converter=True), extend(nn.CrossEntropyLoss())

        def run() -> None:
            with backpack(DiagGGNMC(mc_samples=1)):
                loss(model(self.images), self.labels).backward()

        return run

    def nngeometry(self) -> Callable[[], None]:
        """Prepare nngeometry's exact diagonal FIM."""
        from nngeometry.metrics import FIM
        from nngeometry.object import PMatDiag
        from torch.utils.data import DataLoader, TensorDataset

        loader = DataLoader(TensorDataset(self.images, self.labels), batch_size=len(self.images))

        def run() -> None:
            FIM(self.plain, loader, PMatDiag, variant="classif_logits", device=self.device)

        return run


def timed(run: Callable[[], None], device: torch.device) -> float:
    """Seconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(methods: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, dict[str, float]]:
    """Run the methods in turn; ratios to the first, round by round."""
    for run in methods.values():
        run()
    seconds = {name: [] for name in methods}
    for _ in range(rounds):
        for name, run in methods.items():
            seconds[name].append(timed(run, device))
    base = np.array(next(iter(seconds.values())))
    return {
        name: {
            "median_s": float(np.median(values)),
            "ratio": float(np.median(np.array(values) / base)),
            "ratio_min": float(np.min(np.array(values) / base)),
            "ratio_max": float(np.max(np.array(values) / base)),
        }
        for name, values in seconds.items()
    }


def peers(case: Case) -> tuple[dict[str, Callable[[], None]], dict[str, str]]:
    """Other libraries that can run this network, and why the rest cannot."""
    able: dict[str, Callable[[], None]] = {"batch_mean_loop": case.batch_mean_loop}
    unable: dict[str, str] = {}
    makers = {"vmap_grad": lambda: case.vmap_grad, "backpack": case.backpack, "nngeometry": case.nngeometry}
    for name, make in makers.items():
        try:
            run = make()
            run()
            able[name] = run
        except Exception as error:  # noqa: BLE001 (a peer may fail in any way; it is reported)
            unable[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
    return able, unable


def scaling(device: torch.device, rounds: int, batch: int) -> dict[str, list[dict[str, float]]]:
    """Ratio of the sketch to the plain pass against classes, image size and batch size (EfficientNet-Lite0)."""
    name = "tf_efficientnet_lite0"
    settings = {
        "classes": [{"classes": c} for c in (2, 10, 100, 1000)],
        "size": [{"size": s} for s in (128, 224, 320)],
        "batch": [{"batch": b} for b in (1, 2, 4, 8, 16)],
    }
    result: dict[str, list[dict[str, float]]] = {}
    for axis, points in settings.items():
        result[axis] = []
        for point in points:
            arguments = {"batch": batch, **point}
            case = Case(name, arguments.pop("batch"), device, **arguments)
            found = compare({"plain": case.forward_backward, "sketch": case.sketch}, rounds, device)
            per_image = found["sketch"]["median_s"] / len(case.images)
            result[axis].append({**point, "ratio": found["sketch"]["ratio"], "seconds_per_image": per_image})
    return result


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw the scaling curves."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(result["scaling"]), figsize=(11, 3.2), constrained_layout=True)
    for axis, (name, points) in zip(axes, result["scaling"].items(), strict=True):
        axis.plot([p[name] for p in points], [1000 * p["seconds_per_image"] for p in points], marker="o")
        axis.set_xscale("log", base=2 if name != "classes" else 10)
        axis.set_ylim(bottom=0)
        axis.set(xlabel={"classes": "classes", "size": "image side, px", "batch": "batch size"}[name])
        axis.set_xticks([p[name] for p in points], [str(p[name]) for p in points])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("ms per image")
    figure.suptitle(f"Cost of the Fisher sketch, EfficientNet-Lite0, {result['device']}")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run and write the raw output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--models", nargs="*", default=MODELS)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    models = {}
    for model in args.models:
        case = Case(model, args.batch, device)
        methods: dict[str, Callable[[], None]] = {"plain": case.forward_backward, "sketch": case.sketch}
        entry: dict[str, Any] = {"methods": compare(methods, args.rounds, device)}
        if args.peers:
            able, unable = peers(case)
            entry["peers"] = compare({"plain": case.forward_backward, **able}, max(2, args.rounds // 3), device)
            entry["peers_unable"] = unable
        models[model] = entry
        print(model, json.dumps(entry, indent=1), flush=True)
    result = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu, one thread",
        "batch": args.batch,
        "rounds": args.rounds,
        "models": models,
        "scaling": scaling(device, args.rounds, args.batch),
        "peak_memory_mib": (
            torch.cuda.max_memory_allocated()
            if device.type == "cuda"
            else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        )
        / 2**20,
        "versions": library_versions(),
    }
    out = ROOT / "benchmarks" / "results"
    (out / f"fisher_speed_{device.type}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    plot(result, out / f"fisher_speed_{device.type}.png")


if __name__ == "__main__":
    main()
