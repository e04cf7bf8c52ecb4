"""How a selection was called, so that a report can say the command that repeats it."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# What says nothing of the result, and what must be written nowhere.
_UNSAID = frozenset({"dataset", "token", "progress", "batch_size", "refine", "refine_bytes", "refine_seconds"})
_PLAIN = (str, os.PathLike, bool, int, float, list, tuple, type(None))
_FLAGS = {"licenses": "--license", "cache": "--no-cache"}


@dataclass(frozen=True)
class Call:
    """The arguments of a selection that differ from their defaults; a token is never among them.

    Attributes
    ----------
    dataset
        What the user wrote: a Hub id, a folder or ``"sklearn:digits"``; None for an object in memory.
    options
        Arguments that can be written down.
    objects
        Names of the others, which no command line can say.
    """

    dataset: str | None
    options: Mapping[str, Any]
    objects: tuple[str, ...] = ()

    @classmethod
    def of(cls, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Call:
        """Keep what can be written down of the `arguments` of `function`."""
        parameters = inspect.signature(function).parameters
        said = {
            name: os.fspath(value) if isinstance(value, os.PathLike) else value
            for name, value in arguments.items()
            if name not in _UNSAID and not (isinstance(value, _PLAIN) and value == parameters[name].default)
        }
        dataset = arguments["dataset"]
        return cls(
            os.fspath(dataset) if isinstance(dataset, (str, os.PathLike)) else None,
            {name: value for name, value in said.items() if isinstance(value, _PLAIN)},
            tuple(name for name, value in said.items() if not isinstance(value, _PLAIN)),
        )

    def command(self, **changes: Any) -> str | None:
        """Return the call, with options changed, as a shell command; None if the command line cannot say it."""
        options = {**self.options, **changes}
        if self.dataset is None or self.objects or None in options.values():
            return None
        words = [word for name, value in options.items() for word in _words(name, value)]
        # A name that starts with a dash would be taken for an option.
        named = [*words, "--", self.dataset] if self.dataset.startswith("-") else [self.dataset, *words]
        return shlex.join(["hf-task2vec", "select", *named])

    def python(self, **changes: Any) -> str:
        """Return the call as Python code; objects are called by the names of their arguments."""
        dataset = "dataset" if self.dataset is None else repr(self.dataset)
        options = [f"{name}={value!r}" for name, value in {**self.options, **changes}.items()]
        return f"select_backbone({', '.join([dataset, *(f'{name}={name}' for name in self.objects), *options])})"


def _words(name: str, value: Any) -> list[str]:
    """Return one option of the command line."""
    flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
    if isinstance(value, bool):
        return [flag] if value == (name != "cache") else []
    if isinstance(value, (list, tuple)):
        return [word for item in value for word in (flag, str(item))]
    return [flag, str(int(value) if name == "max_params" else value)]
