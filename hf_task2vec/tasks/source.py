"""What to read of a dataset, and one split of it, opened but not read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import TaskError, check_count

if TYPE_CHECKING:
    from hf_task2vec.tasks.parquet.remote import RemoteSplit


@dataclass(frozen=True)
class Sampling:
    """What to draw of a dataset; see `Task.from_dataset`."""

    name: str | None = None
    split: str | None = None
    revision: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    labels_from: str | None = None
    streaming: bool = False
    max_samples: int | None = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_count(TaskError, 0, seed=self.seed)
        if self.max_samples is not None and self.max_samples < 2:
            raise TaskError(f"max_samples={self.max_samples}: at least 2 images are needed, or None for all")


@dataclass
class Reading:
    """What was read of a dataset, and what was not."""

    labels_from: str = ""
    alternatives: tuple[str, ...] = ()
    """Other interpretations that were possible, and how to ask for them."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Files or rows that were left out, by reason."""
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The first few of them, by reason."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One split of a dataset, and where it came from."""

    dataset: str
    """Hub id, folder name, ``"sklearn:digits"``, or for objects the name they carry, else "dataset". Never a path."""
    load: Callable[[], Any]
    """Returns all its rows: a `rows.Data`, or a dataset or stream of `datasets`."""
    remote: RemoteSplit | None = None
    """Returns those of its rows that are needed."""
    revision: str | None = None
    config_name: str | None = None
    split: str | None = None
    other_splits: tuple[str, ...] = ()
    may_read: Callable[[str], bool] | None = None
    """Says which files and addresses its rows may name; None: any, for the user's own folders and objects."""
    reading: Reading = field(default_factory=Reading)
    """What was read of it; the warnings are added by who reads."""

    def __str__(self) -> str:
        return f"split {self.split!r} of {self.dataset!r}" if self.split else f"{self.dataset!r}"

    @property
    def advice(self) -> str:
        """The other splits, as the end of an error that another one may not have."""
        return f"; other splits: {', '.join(self.other_splits)}" if self.other_splits else ""
