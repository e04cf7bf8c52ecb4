"""Build networks and preprocessing from transformers checkpoints.

Which vector stands for an image follows the checkpoint:

1. A checkpoint trained as an image classifier (``architectures`` names a ``…ForImageClassification…``): the input of
   its final linear classifier, so that the pooling is the one it was trained with. Where two classifiers are averaged
   (distilled DeiT, LeViT), their inputs are averaged.
2. Any other: the vision tower alone (of CLIP, SigLIP and other dual encoders without the projection into the shared
   space) and its ``pooler_output``, if the checkpoint holds the pooler's weights or it has none.
3. Without a trained pooler: the CLS token of ``last_hidden_state`` if there is one, else the mean over positions.

Weights that the checkpoint does not hold are never used: transformers would fill them at random.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hf_task2vec.errors import ProbeError
from hf_task2vec.hub import HubSession, redact
from hf_task2vec.probes.checkpoint_files import CheckpointSource, Preprocessing, hub_errors

if TYPE_CHECKING:
    from PIL.Image import Image

# Model types whose AutoModel is not what should embed an image: dual encoders, and the masked autoencoder, whose own
# class drops patches at random.
_TOWERS = {
    "align": "AlignVisionModel",
    "altclip": "AltCLIPVisionModel",
    "blip": "BlipVisionModel",
    "chinese_clip": "ChineseCLIPVisionModel",
    "clip": "CLIPVisionModel",
    "metaclip_2": "MetaClip2VisionModel",
    "siglip": "SiglipVisionModel",
    "vit_mae": "ViTModel",
}
_CLASSIFIERS = {"vit_mae": "ViTForImageClassification"}

_POOLER = re.compile(r"(^|\.)pooler\.")
# No feature depends on these: the counter is for training, the token for masked pre-training.
_UNUSED = re.compile(r"(^|\.)(num_batches_tracked|mask_token)$")


@dataclass(frozen=True)
class ProcessorTransform:
    """A transformers image processor as a function of one image; can be pickled for data-loader workers."""

    processor: Any

    def __call__(self, image: Image) -> Tensor:
        """Return the ``(3, H, W)`` float32 tensor of one RGB image."""
        pixels: Tensor = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels.float()


class ClassifierFeatures(nn.Module):
    """An image classifier whose final linear layers were replaced by the identity."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, d)``."""
        features: Tensor = self.model(pixel_values=pixel_values).logits
        return features


class TowerFeatures(nn.Module):
    """A vision tower with the pooling of rules 2 and 3 above.

    Parameters
    ----------
    model
        Network that returns ``last_hidden_state`` and perhaps ``pooler_output``.
    cls_token
        Whether the first token is a CLS token, for networks without a pooler.
    """

    def __init__(self, model: nn.Module, *, cls_token: bool) -> None:
        super().__init__()
        self.model = model
        self.cls_token = cls_token

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, d)``."""
        output = self.model(pixel_values=pixel_values)
        features: Tensor | None = getattr(output, "pooler_output", None)
        if features is None:
            features = output.last_hidden_state
        if features.ndim == 4:  # (B, d, H, W)
            return features.mean(dim=(2, 3))
        if features.ndim == 3:  # (B, tokens, d)
            return features[:, 0] if self.cls_token else features.mean(dim=1)
        return features


def load_transformers(
    source: CheckpointSource, *, num_classes: int, token: str | None
) -> tuple[nn.Module, Preprocessing]:
    """Load a transformers checkpoint as an image classifier with a fresh head, or a feature extractor for 0 classes."""
    preprocessing = _load_preprocessing(source, token)
    if num_classes:
        return _load_fresh_classifier(source, num_classes, token), preprocessing
    architecture = (source.config.get("architectures") or [""])[0]
    if "ForImageClassification" not in architecture:
        return _load_tower(source, token), preprocessing
    model, missing = _load_model(source, token, _classifier_class(source))
    _refuse_missing(source, missing)
    if model.config.num_labels:  # with 0 labels transformers builds an identity itself
        for path in _final_linears(model, source.name):
            model.set_submodule(path, nn.Identity())
    return ClassifierFeatures(model), preprocessing


def _load_fresh_classifier(source: CheckpointSource, num_classes: int, token: str | None) -> nn.Module:
    model, missing = _load_model(
        source, token, _classifier_class(source), num_labels=num_classes, ignore_mismatched_sizes=True
    )
    heads = _final_linears(model, source.name)
    # Outside the encoder everything may be fresh; inside, only the head of a wrapped timm model and a pooler may.
    prefix = f"{_encoder_of(model)}."
    fresh = tuple(f"{path}." for path in heads)
    inside = {name for name in missing if name.startswith(prefix) and not name.startswith(fresh)}
    _refuse_missing(source, {name for name in inside if not _POOLER.search(name)})
    for head in heads.values():
        head.reset_parameters()  # with an equal number of labels the checkpoint's own head was loaded
    return model


def _load_preprocessing(source: CheckpointSource, token: str | None) -> Preprocessing:
    from PIL import Image
    from transformers import AutoImageProcessor

    processor = _load(source, token, AutoImageProcessor)
    transform = ProcessorTransform(processor)
    shapes = [tuple(transform(Image.new("RGB", size)).shape) for size in ((320, 240), (240, 320))]
    if shapes[0] != shapes[1] or len(shapes[0]) != 3 or shapes[0][0] != 3:
        raise ProbeError(
            f"The image processor of {source.name!r} turns a 320x240 and a 240x320 image into shapes "
            f"{shapes[0]} and {shapes[1]}; batches need one shape (3, H, W). Use Probe.wrap with a transform that "
            "resizes or crops."
        )
    _, height, width = shapes[0]
    return Preprocessing(transform, (3, height, width), json.loads(processor.to_json_string()))


def _classifier_class(source: CheckpointSource) -> Any:
    import transformers

    return getattr(transformers, _CLASSIFIERS.get(source.config["model_type"], "AutoModelForImageClassification"))


def _load_tower(source: CheckpointSource, token: str | None) -> TowerFeatures:
    import transformers

    cls = getattr(transformers, _TOWERS.get(source.config["model_type"], "AutoModel"))
    model, missing = _load_model(source, token, cls)
    untrained_pooler = {name for name in missing if _POOLER.search(name)}
    _refuse_missing(source, missing - untrained_pooler)
    if untrained_pooler:
        if "add_pooling_layer" not in inspect.signature(type(model).__init__).parameters:
            _refuse_missing(source, untrained_pooler)
        model, _ = _load_model(source, token, type(model), add_pooling_layer=False)
    names = [name.rpartition(".")[2] for name, _ in model.named_parameters()]
    return TowerFeatures(model, cls_token="cls_token" in names or "class_embedding" in names)


def _refuse_missing(source: CheckpointSource, missing: set[str]) -> None:
    if missing:
        names = ", ".join(sorted(missing)[:5])
        raise ProbeError(
            f"{source.name!r} lacks {len(missing)} tensors of its network ({names}, …); they would be random. "
            f"config.json names {source.config.get('architectures')}; use a checkpoint that holds its whole encoder."
        )


def _encoder_of(model: Any) -> str:
    """Return the name of the child that is the encoder: the one of the most modules."""
    name, _ = max(model.named_children(), key=lambda child: sum(1 for _ in child[1].modules()))
    return str(name)


def _final_linears(model: Any, name: str) -> dict[str, nn.Linear]:
    """Return the linear layers of the classifier (outside the encoder, one output a label) by dotted name."""
    if model.config.model_type == "timm_wrapper":
        classifier = model.timm_model.get_classifier()
        parts = classifier if isinstance(classifier, tuple) else (classifier,)
        inside = {id(module) for part in parts for module in part.modules()}
    else:
        encoder = f"{_encoder_of(model)}."
        inside = {id(module) for path, module in model.named_modules() if not path.startswith(encoder)}
    found = {
        path: layer
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and id(layer) in inside and layer.out_features == model.config.num_labels
    }
    if not found:
        raise ProbeError(
            f"{name!r} ({type(model).__name__}) has no linear classifier with {model.config.num_labels} outputs after "
            "its encoder; load the network yourself and use Probe.wrap(module, transform=…, feature_dim=…)."
        )
    return found


def _load_model(source: CheckpointSource, token: str | None, cls: Any, **options: Any) -> tuple[Any, set[str]]:
    """Return the float32 network and the names of the tensors that the checkpoint lacks and features may need.

    transformers fills such tensors at random, so the caller has to refuse or remove them.
    """
    # Without dtype=, half-precision checkpoints would stay so.
    model, info = _load(source, token, cls, dtype=torch.float32, output_loading_info=True, **options)
    missing = set(info["missing_keys"])
    for name in filter(_UNUSED.search, missing):
        model.get_parameter_or_buffer(name).data.zero_()  # otherwise the hash would change from load to load
    return model, {name for name in missing if not _UNUSED.search(name)}


def _load(source: CheckpointSource, token: str | None, cls: Any, **options: Any) -> Any:
    """Return ``cls.from_pretrained`` of the checkpoint; Hub files are taken at the commit of its ``config.json``."""
    import transformers

    location = source.repo_id or str(source.folder)
    if source.repo_id is not None:
        options |= {"revision": source.revision, "token": token}
    try:
        with _without_load_report():
            return cls.from_pretrained(location, trust_remote_code=False, **options)
    # A bad config, misfitting weights, an unknown model type: transformers raises a dozen types for them.
    except Exception as error:
        if (hub_failure := _hub_failure(error)) is not None:
            session = HubSession(source.name, revision=source.revision, repo_type="model", token=token)
            with hub_errors(session):
                raise hub_failure from error
        hint = "A newer transformers may know it."
        if "Unrecognized configuration class" in str(error):
            hint = "It has no such head for this model type: put a linear layer after Probe.from_pretrained(…).module."
        if "trust_remote_code" in str(error):
            hint = "It runs its own code: if you trust that, load it with transformers yourself and use Probe.wrap."
        raise ProbeError(
            f"{cls.__name__} of transformers {transformers.__version__} cannot load {source.name!r}: "
            f"{type(error).__name__}: {redact(error, token)} {hint}"
        ) from error


def _hub_failure(error: BaseException | None) -> BaseException | None:
    """Return the Hub client's error behind a transformers one; transformers turns it into a plain OSError."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    while error is not None:
        if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx.HTTPError)):
            # A file the repository lacks is the checkpoint's fault, not the connection's.
            return None if isinstance(error, errors.RemoteEntryNotFoundError) else error
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Keep transformers from logging its table of unexpected and missing tensors.

    Heads and text towers are left out on purpose, and a missing tensor is refused or removed by our own check: the
    table would only alarm. Other messages of that logger pass.
    """

    def is_no_report(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(is_no_report)
