"""Count parameters and multiply-adds of networks that no published table counts, on the meta device.

    python -m benchmarks.index.count_architectures [--shared ../shared]

A network is built without memory and without weights. Counted is the feature extractor (no classifier), for one image
at the checkpoint's own input size: the multiply-adds of convolutions, linear layers and attention's products, as
timm's tables count them. ``counted.csv`` is only ever added to: what it holds is not counted again.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import SHARED, parser

HERE = Path(__file__).resolve().parent
TABLE = HERE / "counted.csv"
# Architectures of transformers that timm lacks: configuration, and what differs from its defaults.
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "cvt-13": ("Cvt", {}),
    "cvt-21": ("Cvt", {"depth": [1, 4, 16]}),
    "cvt-w24": ("Cvt", {"depth": [2, 2, 20], "num_heads": [3, 12, 16], "embed_dim": [192, 768, 1024]}),
    "mit-b0": ("Segformer", {}),
    "mit-b1": ("Segformer", {"hidden_sizes": [64, 128, 320, 512]}),
    "mit-b2": ("Segformer", {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 6, 3]}),
    "mit-b3": ("Segformer", {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 18, 3]}),
    "mit-b4": ("Segformer", {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 8, 27, 3]}),
    "mit-b5": ("Segformer", {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 6, 40, 3]}),
    "pvt-tiny": ("Pvt", {"depths": [2, 2, 2, 2]}),
    "pvt-small": ("Pvt", {"depths": [3, 4, 6, 3]}),
    "pvt-medium": ("Pvt", {"depths": [3, 4, 18, 3]}),
    "pvt-large": ("Pvt", {"depths": [3, 8, 27, 3]}),
    "mobilenet_v1_0.75": ("MobileNetV1", {"depth_multiplier": 0.75}),
}

# Vision transformers that timm has in other sizes only: its architecture, and what differs, as papers and cards say.
CUSTOM: dict[str, tuple[str, dict[str, Any]]] = {
    "eva-clip-18b": ("vit_base_patch14_dinov2", {"embed_dim": 5120, "depth": 48, "num_heads": 40, "mlp_ratio": 5}),
    "vit-7b-patch14": ("vit_base_patch14_dinov2", {"embed_dim": 4096, "depth": 32, "num_heads": 32}),
    "aim-600m": ("vit_base_patch14_dinov2", {"embed_dim": 1536, "depth": 24, "num_heads": 12}),
    "vit-giant-patch16-swiglu": ("vit_giant_patch14_dinov2", {"patch_size": 16}),
    "uni2-h": ("vit_giant_patch14_dinov2", {"depth": 24, "reg_tokens": 8}),
    "vit-base-patch4": ("vit_base_patch8_224", {"patch_size": 4}),
    "vit-large-patch7": ("vit_large_patch14_224", {"patch_size": 7}),
}


def build(library: str, architecture: str, input_px: int) -> Any:
    """Return a network without a classifier; a timm network takes the input size where its positions depend on it."""
    if library == "transformers":
        import transformers

        name, changes = TRANSFORMERS[architecture]
        return getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**changes))
    import timm

    architecture, changes = CUSTOM.get(architecture, (architecture, {}))
    try:
        return timm.create_model(architecture, pretrained=False, num_classes=0, img_size=input_px, **changes)
    except TypeError:  # a convolutional network takes images of any size
        return timm.create_model(architecture, pretrained=False, num_classes=0)


def count(library: str, architecture: str, input_px: int) -> tuple[float, float]:
    """Return million parameters, and 10⁹ multiply-adds of one image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = build(library, architecture, input_px).eval().requires_grad_(False)
        model(torch.empty(1, 3, input_px, input_px))
    return sum(p.numel() for p in model.parameters()) / 1e6, counter.get_total_flops() / 2e9


def counted() -> dict[tuple[str, int], dict[str, str]]:
    """Return what was counted, by architecture and input size."""
    with TABLE.open(newline="", encoding="utf-8") as handle:
        return {(row["architecture"], int(row["input_px"])): row for row in csv.DictReader(handle)}


def wanted(shared: Path) -> Iterator[tuple[str, str, int]]:
    """Yield library, architecture and input size of every checkpoint that timm's result tables do not list."""
    from timm.models import get_pretrained_cfg, is_model, list_pretrained

    with (shared / "published" / "timm_checkpoints.csv").open(newline="", encoding="utf-8") as handle:
        listed = {(row["arch"], row["img_size"]) for row in csv.DictReader(handle) if row["gmacs"]}
    with (HERE / "weights.csv").open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            if row["tower"] and row["input_px"] and (row["tower"], row["input_px"]) not in listed:
                by_timm = is_model(row["tower"]) or row["tower"] in CUSTOM
                yield "timm" if by_timm else "transformers", row["tower"], int(row["input_px"])
    for name in list_pretrained():
        architecture, size = name.partition(".")[0], get_pretrained_cfg(name).input_size[-1]
        if (architecture, str(size)) not in listed:
            yield "timm", architecture, size


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--shared", type=Path, default=SHARED)
    known = counted()
    for library, architecture, size in dict.fromkeys(wanted(options.parse_args().shared)):
        if (architecture, size) in known:
            continue
        try:
            params, gmacs = count(library, architecture, size)
        except (RuntimeError, ValueError, AssertionError) as error:  # some cannot run on the meta device
            print(f"{architecture} at {size} px is not counted: {error}")
            continue
        with TABLE.open("a", encoding="utf-8") as handle:
            handle.write(f"{library},{architecture},{size},{params:.4g},{gmacs:.4g}\n")


if __name__ == "__main__":
    main()
