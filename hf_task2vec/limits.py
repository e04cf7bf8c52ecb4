"""What a recommended checkpoint, and the second stage, must keep to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from hf_task2vec.errors import SelectionError


@dataclass(frozen=True)
class Constraints:
    """Limits that a recommended checkpoint must meet; None means no limit.

    Attributes
    ----------
    max_params
        Most parameters (a count, such as 30e6).
    max_gmacs
        Most multiply-accumulates for one image at the checkpoint's input size, in 10⁹.
    licenses
        Accepted licences, such as ``("apache-2.0", "mit")``; a checkpoint of unknown licence is then left out.
    library
        ``"timm"`` or ``"transformers"``, ...
    input_size
        Input side in pixels.
    candidates
        Hub ids to rank; all others are left out.

    Raises
    ------
    SelectionError
        A value is of the wrong kind or leaves nothing.
    """

    max_params: float | None = None
    max_gmacs: float | None = None
    licenses: tuple[str, ...] | None = None
    library: str | None = None
    input_size: int | None = None
    candidates: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("max_params", "max_gmacs", "input_size"):
            value: Any = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, Real):
                raise SelectionError(f"{name}={value!r} is no number; give a number such as 30e6, or None for no limit")
            if not float(value) > 0:
                raise SelectionError(f"{name}={value!r} leaves nothing; give a positive number or None")
        for name in ("licenses", "candidates"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))


@dataclass(frozen=True)
class Budget:
    """Limits of the second stage.

    Attributes
    ----------
    max_bytes
        Most bytes to download, taking four for each parameter of a candidate; None for no limit.
    max_seconds
        Start no measurement that would end later than this, if it takes as long as those before did; None for no
        limit.

    Raises
    ------
    SelectionError
        A limit is no number, or not positive.
    """

    max_bytes: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_seconds"):
            value: Any = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, Real):
                raise SelectionError(
                    f"refine's {name}={value!r} is no number; give a number such as 2e9, or None for no limit"
                )
            if not float(value) > 0:
                raise SelectionError(
                    f"refine's {name}={value!r} leaves nothing to measure; give a positive number or None"
                )


def _texts(name: str, values: Any) -> tuple[str, ...] | None:
    if values is None:
        return None
    if isinstance(values, str):
        raise SelectionError(f"{name} takes a list of strings, found the string {values!r}; pass [{values!r}]")
    found = tuple(values) if isinstance(values, Iterable) else (values,)
    if odd := [value for value in found if not isinstance(value, str)]:
        raise SelectionError(f"{name} takes a list of strings, found {odd[0]!r}")
    if not found:
        raise SelectionError(f"{name} is an empty list, which leaves nothing; pass None for no limit")
    return found
