"""What a report shows beside a ranking: how the selection was called, and a few small pictures of its sample."""

from __future__ import annotations

import inspect
import io
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from hf_task2vec.task import Task

#: Pictures on a contact sheet, and the longest side of each in pixels.
MAX_THUMBNAILS, THUMBNAIL_PX = 40, 96
# Up to this side a picture is kept as it is, without loss: that is smaller, and eight pixels do not survive JPEG.
_LOSSLESS_PX = 48
# What says nothing of the result, and what must be written nowhere.
_UNSAID = frozenset({"dataset", "token", "progress", "batch_size", "refine", "refine_bytes", "refine_seconds"})
_FLAGS = {"licenses": "--license", "streaming": "--streaming", "cache": "--no-cache"}
_COUNTS = ("max_params", "refine_bytes")
# A user access token; `hub_errors` looks for shorter ones too, but a folder may be called hf_pictures.
_TOKEN = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{30,}")


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of one image of a sample, without the metadata of its file.

    Attributes
    ----------
    data
        An encoded image.
    mime
        ``"image/png"`` or ``"image/jpeg"``.
    width, height
        In pixels, at most `THUMBNAIL_PX`.
    labels
        Names of its classes: one, or of a multi-label task any number.
    """

    data: bytes
    mime: str
    width: int
    height: int
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """How a selection was called, so that it can be called again; a token is never part of it.

    Attributes
    ----------
    dataset
        What the user wrote: a Hub id, a folder or ``"sklearn:digits"``; None for an object in memory.
    options
        Arguments that differ from their defaults.
    objects
        Names of arguments that were objects, which no command line can say.
    """

    dataset: str | None
    options: Mapping[str, Any]
    objects: tuple[str, ...] = ()

    @classmethod
    def of(cls, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Call:
        """Keep what can be written down of the `arguments` of `function`, without the token."""
        hidden = secrets(arguments.get("token"))
        defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
        options, objects = {}, []
        for name, value in arguments.items():
            if name in _UNSAID or (value is None and defaults[name] is None):
                continue
            plain = _plain(value, hidden)
            if plain is _NOT_PLAIN:
                objects.append(name)
            elif plain != defaults[name]:
                options[name] = plain
        dataset = _plain(arguments["dataset"], hidden)
        return cls(dataset if isinstance(dataset, str) else None, options, tuple(objects))

    def command(self, n_rows: int | None = None, **changes: Any) -> str | None:
        """Return the call as a shell command, None if the command line cannot say it.

        Parameters
        ----------
        n_rows
            Rows of the dataset: what ``max_samples=None`` stands for.
        changes
            Options to set otherwise.
        """
        options = {**self.options, **changes}
        if options.get("max_samples", 0) is None:
            options["max_samples"] = n_rows
        if self.dataset is None or self.objects or None in options.values():
            return None
        words = [word for name, value in options.items() for word in _words(name, value)]
        # A name that starts with a dash would be taken for an option.
        named = ["--", self.dataset] if self.dataset.startswith("-") else [self.dataset]
        ordered = [*words, *named] if len(named) > 1 else [*named, *words]
        return shlex.join(["hf-task2vec", "select", *ordered])

    def python(self, **changes: Any) -> str:
        """Return the call as Python code; objects are called by the names of their arguments."""
        dataset = "dataset" if self.dataset is None else repr(self.dataset)
        options = [f"{name}={value!r}" for name, value in {**self.options, **changes}.items()]
        return f"select_backbone({', '.join([dataset, *(f'{name}={name}' for name in self.objects), *options])})"


@dataclass(frozen=True)
class Material:
    """What a ranking keeps for its report, in memory only.

    Attributes
    ----------
    call
        How the selection was called.
    thumbnails
        Small copies of some images of the sample, in the order of their classes; none of an embedding.
    """

    call: Call
    thumbnails: tuple[Thumbnail, ...] = ()


def thumbnails(task: Task, count: int = MAX_THUMBNAILS, side: int = THUMBNAIL_PX) -> tuple[Thumbnail, ...]:
    """Return small copies of the first `count` images of a sample, whose every beginning is balanced.

    They are encoded anew, so that nothing of the files but the pixels is left (no place or time of a photograph, no
    comments), and smaller images are not enlarged.
    """
    import numpy as np

    several = task.labels.ndim == 2
    chosen = []
    for position in range(min(count, len(task))):
        classes = np.flatnonzero(task.labels[position]) if several else [task.labels[position]]
        names = tuple(task.label_names[int(i)] for i in classes)
        chosen.append((tuple(int(i) for i in classes), _thumbnail(task.images[position], names, side)))
    return tuple(picture for _, picture in sorted(chosen, key=lambda pair: pair[0]))


def secrets(token: Any = None) -> tuple[str, ...]:
    """Return what must be written nowhere: `token`, and that of the user who is logged in."""
    from huggingface_hub import get_token

    return tuple(secret for secret in (token, get_token()) if isinstance(secret, str) and secret)


def without_tokens(text: str, hidden: Iterable[str]) -> str:
    """Return `text` without the `hidden` secrets and without whatever else looks like a token."""
    for secret in hidden:
        text = text.replace(secret, "***")
    return _TOKEN.sub("***", text)


def _thumbnail(image: Image.Image, labels: tuple[str, ...], side: int) -> Thumbnail:
    from PIL import Image as Pillow

    if max(image.size) > side:
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Pillow.Resampling.LANCZOS, reducing_gap=2.0)
    bare = Pillow.frombytes("RGB", image.size, image.tobytes())  # a copy would carry comments and colour profiles
    stream = io.BytesIO()
    if max(bare.size) <= _LOSSLESS_PX:
        bare.save(stream, "PNG", optimize=True)
        return Thumbnail(stream.getvalue(), "image/png", *bare.size, labels)
    bare.save(stream, "JPEG", quality=80, optimize=True)
    return Thumbnail(stream.getvalue(), "image/jpeg", *bare.size, labels)


_NOT_PLAIN = object()


def _plain(value: Any, hidden: tuple[str, ...]) -> Any:
    """Return a value that can be written down, with any token blotted out, else `_NOT_PLAIN`."""
    if isinstance(value, (str, os.PathLike)):
        text = os.fspath(value)
        return without_tokens(text, hidden) if isinstance(text, str) else _NOT_PLAIN
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(item, str) for item in value):
        return [without_tokens(item, hidden) for item in value]
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else _NOT_PLAIN


def _words(name: str, value: Any) -> list[str]:
    """Return one option of the command line."""
    flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
    if isinstance(value, bool):
        return [flag] if value == (name != "cache") else []
    if isinstance(value, list):
        return [word for item in value for word in (flag, item)]
    if name in _COUNTS:
        count = int(value)
        value = f"{count // 10**6}M" if count % 10**6 == 0 else count
    return [flag, f"{value:g}" if isinstance(value, float) else str(value)]
