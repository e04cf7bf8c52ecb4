"""What to read of a dataset, one split of it, opened but not read, and what the names of splits mean."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import DatasetNotFoundError, TaskError, check_count

if TYPE_CHECKING:
    from hf_task2vec.tasks.parquet.remote import RemoteSplit

logger = logging.getLogger(__name__)
_SPLITS = {
    "train": "train|training|trn",
    "validation": "val|valid|validation|dev|eval|evaluation",
    "test": "test|testing|tst",
    "unlabelled": "pred|predict|prediction|unlabell?ed|submission|holdout|extra|unassigned",
}
_SPLIT = re.compile(
    r"(?P<before>(?:\w*[_-])?)(?:"
    + "|".join(f"(?P<{name}>{words})" for name, words in _SPLITS.items())
    + r")(?:[-_. ]?(?:set|data|images?|imgs?|pictures?|folder|split|dir))*(?P<number>[-_]?\d*)",
    re.IGNORECASE,
)
_FORM = re.compile(
    r"(?:(orig(?:inal)?|raw|colou?r|rgb)|(gr[ae]y(?:[-_ ]?scale)?|bw)|((?:pre[-_ ]?)?processed|cropped|resized)"
    r"|(segmented)|(aug(?:mented)?|augmentation|synthetic))(?:[-_ ]?(?:data|dataset|images?|imgs?|set))*",
    re.IGNORECASE,
)
_SHARD_SPLIT = re.compile(
    r"(?:^|[-_./ ])(train(?:ing)?|val(?:id(?:ation)?)?|dev|test(?:ing)?)(?=$|[-_./ ]|\d)", re.IGNORECASE
)


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


@dataclass(frozen=True)
class Reading:
    """What was read of a dataset, and what was not."""

    labels_from: str = ""
    alternatives: tuple[str, ...] = ()  # other interpretations that were possible, and how to ask for them
    left_out: Mapping[str, int] = field(default_factory=dict)  # files or rows that were left out, by reason
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the first few of them
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One split of a dataset, and where it came from."""

    dataset: str  # Hub id, name of a folder or object, else "dataset"; never a path
    load: Callable[[], Any]  # returns all its rows: a `rows.Data`, or a dataset or stream of `datasets`
    remote: RemoteSplit | None = None  # returns those of its rows that are needed
    revision: str | None = None
    config_name: str | None = None
    split: str | None = None
    other_splits: tuple[str, ...] = ()
    may_read: Callable[[str], bool] | None = None  # which files its rows may name; None: any, of the user's own data
    reading: Reading = field(default_factory=Reading)  # what was read of it; the warnings are added by who reads

    def __str__(self) -> str:
        return f"split {self.split!r} of {self.dataset!r}" if self.split else f"{self.dataset!r}"

    @property
    def advice(self) -> str:
        """The other splits, as the end of an error that another one may not have."""
        return f"; other splits: {', '.join(self.other_splits)}" if self.other_splits else ""


def split_of(word: str) -> str | None:
    """Return which split a name stands for: ``train``, ``validation``, ``test`` or ``unlabelled``; None for none."""
    match = _SPLIT.fullmatch(word)
    return None if match is None else next(name for name in _SPLITS if match[name])


def form_of(word: str) -> int:
    """Return where a name stands among the forms that the same pictures are given in, the plainest 0; -1 for none."""
    match = _FORM.fullmatch(word)
    return -1 if match is None else (match.lastindex or 1) - 1


def tell_splits(values: Iterable[Any], *, train: bool = True) -> bool:
    """Return whether all values are names of splits, with `train` that to train on among them."""
    found = {split_of(str(value)) for value in values if value is not None}
    return None not in found and ("train" in found if train else bool(found))


def shard_split(path: str) -> str | None:
    """Return which split the path of a file of data tells: ``data/train-00000-of-00002.parquet``."""
    found = _SHARD_SPLIT.findall(path.rpartition(".")[0])
    return split_of(found[-1]) if found else None


def pick_split(names: Sequence[str], requested: str | None, place: str, *, expressions: bool = False) -> str:
    """Return the split asked for, by its name or what it stands for; else the one to train on, or the only one.

    With `expressions`, one of `datasets` (``"train[:10%]+test"``) is returned as it is if its splits are there.
    """
    by_meaning = {split_of(name) or name: name for name in reversed(names)} | {name: name for name in names}
    found = ", ".join(names) or "none"
    if requested is not None:
        parts = [re.sub(r"\[.*?\]|\(.*?\)", "", part).strip() for part in requested.split("+")]
        if parts == [requested] and requested not in names:
            parts = [by_meaning.get(split_of(requested) or "", requested)]
        unknown = [part for part in parts if part not in names and part != "all"]
        if unknown:
            raise DatasetNotFoundError(f"no split {unknown[0]!r} in {place}; splits found: {found}")
        if not expressions and (len(parts) > 1 or "[" in requested or parts[0] not in names):
            raise DatasetNotFoundError(
                f"{place} is read a whole split at a time, not {requested!r}; pass one of {found}"
            )
        return parts[0] if len(parts) == 1 and "[" not in requested else requested
    if "train" in by_meaning or len(names) == 1:
        chosen = by_meaning.get("train", names[0])
        logger.info("split %r of %s is used; splits found: %s", chosen, place, found)
        return chosen
    raise DatasetNotFoundError(f"{place} has no split 'train' to take by default; pass split=… (splits found: {found})")


def by_split(folders: Sequence[str]) -> dict[str, list[str]]:
    """Return the folders by split if all are splits, and several are one only as its numbered parts; else none."""
    matches = {folder: _SPLIT.fullmatch(folder.rpartition("/")[2]) for folder in folders}
    found: dict[str, list[str]] = defaultdict(list)
    for folder, match in matches.items():
        if match is not None:
            meaning = split_of(match[0]) or ""
            found[meaning if match["number"] else match[0]].append(folder)
    meanings = [split_of(name) or "" for name in found]
    alike = len({match["before"].lower() for match in matches.values() if match is not None}) == 1
    if None in matches.values() or len(set(meanings)) < len(found) or not alike or set(meanings) <= {"unlabelled"}:
        return {}
    order = [*_SPLITS]
    return dict(sorted(found.items(), key=lambda item: order.index(split_of(item[0]) or "")))
