"""Load the checkpoints of ``../shared/checkpoints``: real weights in a folder each, most of them on no Hub.

Each folder holds ``model.safetensors`` and a ``config.json`` that says how to build the network with timm, transformers
or torchvision and how its images were preprocessed. Features are what the final classifier receives, pooled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from hf_task2vec.errors import ProbeError
from hf_task2vec.features import Transform, checked_feature_dim, freeze
from hf_task2vec.files import sha256_file
from hf_task2vec.loading import LoadedCheckpoint

CHECKPOINTS = Path(__file__).resolve().parents[1].parent / "shared" / "checkpoints"


def local_checkpoints(root: Path = CHECKPOINTS) -> list[Path]:
    """Return the checkpoint folders under `root`, sorted by name; empty if there is no such folder."""
    return sorted(path.parent for path in root.glob("*/config.json"))


def load_local(folder: str | Path) -> LoadedCheckpoint:
    """Load one checkpoint folder as a frozen feature extractor, in float32.

    Raises
    ------
    ProbeError
        If the weights differ from the recorded checksum, do not fit the network, or give features of another dimension
        than recorded.
    """
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = folder / "model.safetensors"
    if (found := sha256_file(weights)) != config["sha256"]:
        raise ProbeError(f"{weights} has SHA-256 {found}, but config.json says {config['sha256']}.")
    library: str = config["library"]
    module = freeze(
        {"timm": _timm, "transformers": _mobilenet_v1, "torchvision": _squeezenet}[library](config, weights)
    )
    transform, preprocessing = _preprocessing(folder.name, config["pretrained_cfg"])
    channels, height, width = config["pretrained_cfg"]["input_size"]
    input_size = (channels, height, width)
    feature_dim = checked_feature_dim(module, input_size, f"Checkpoint {folder.name!r}")
    recorded = config.get("head_hidden_size", config["num_features"])
    if feature_dim != recorded:
        raise ProbeError(f"{folder.name!r} gives {feature_dim} features, but config.json says {recorded}.")
    return LoadedCheckpoint(
        module=module,
        transform=transform,
        feature_dim=feature_dim,
        input_size=input_size,
        name=folder.name,
        library=library,
        revision=None,
        preprocessing=preprocessing,
    )


def _timm(config: dict[str, Any], weights: Path) -> nn.Module:
    import timm

    arguments = {"num_classes": config["num_classes"], **config.get("model_args", {})}
    model: Any = timm.create_model(config["architecture"], **arguments)
    _load_strictly(model, weights)
    model.reset_classifier(0)
    return cast("nn.Module", model)


def _mobilenet_v1(config: dict[str, Any], weights: Path) -> nn.Module:
    from transformers import MobileNetV1Config, MobileNetV1ForImageClassification

    from hf_task2vec.transformers_adapter import ClassifierFeatures

    model = MobileNetV1ForImageClassification(MobileNetV1Config(**config["model_args"]))
    _load_strictly(model, weights)
    model.classifier = nn.Identity()
    return ClassifierFeatures(model)


def _squeezenet(config: dict[str, Any], weights: Path) -> nn.Module:
    from torchvision.models import squeezenet1_1

    model = squeezenet1_1(weights=None, num_classes=config["num_classes"])
    _load_strictly(model, weights)
    # The classifier is a convolution on the last feature map, pooled afterwards; its input is pooled here.
    return nn.Sequential(model.get_submodule("features"), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _load_strictly(model: nn.Module, weights: Path) -> None:
    """Load all tensors as float32; only BatchNorm's step counters, which evaluation never reads, may be missing."""
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {
        name: value.float() if value.is_floating_point() else value for name, value in load_file(weights).items()
    }
    result = model.load_state_dict(state, strict=False)
    missing = [name for name in result.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        raise ProbeError(f"{weights}: missing {missing}, unexpected {result.unexpected_keys}.")


def _preprocessing(name: str, pretrained_cfg: dict[str, Any]) -> tuple[Transform, dict[str, Any]]:
    from timm.data import create_transform, resolve_data_config
    from torchvision.transforms import Compose, InterpolationMode, Resize

    data_config = resolve_data_config(pretrained_cfg=pretrained_cfg)
    transform: Transform = create_transform(**data_config, is_training=False)
    description = {key: list(value) if isinstance(value, tuple) else value for key, value in data_config.items()}
    if name == "resnet56_cifar.cifar10":
        # A CIFAR network written for 128 px: it expects each of 32x32 pixels repeated four times.
        transform = Compose([Resize((32, 32), InterpolationMode.BICUBIC, antialias=True), transform])
        description["resize_first"] = {"size": [32, 32], "interpolation": "bicubic"}
    return transform, description
