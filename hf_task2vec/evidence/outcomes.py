"""Outcomes of fine-tuning as rows of an index: which weights, which task, and what can be compared.

One repository is one noisy run. Runs of one author on one dataset are a series, of which the best of each base counts:
what people report is the end of a search, and a series holds its failures too (optimisers, rates, folds). Where an
author has tried several bases on a dataset these compare among themselves, for they share images, script and split;
the rest of a dataset's outcomes compare with each other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

from hf_task2vec.evidence.cards import Outcome, sizes_agree
from hf_task2vec.zoo import (
    HUB_CARDS,
    NAMED_BY_CARD,
    ScoreRow,
    SourceRow,
    TaskNames,
    TaskRow,
    ZooIndex,
    as_slug,
    current_id,
    plain,
)

_PROTOCOLS = {"full": "full_finetune", "adapter": "lora", "frozen": "linear_probe"}
# Flag of tasks whose data only the names of one author's repositories tell.
_BY_NAME = "named_by_repository"
#: Fewer test images than these tell nothing.
LEAST_TEST_IMAGES = 30
# Notebooks whose repositories' names say nothing of the data, and the images that the real ones hold out.
_TEMPLATES: Mapping[str, int | None] = MappingProxyType(
    {"eurosat": 2700, "beans": None, "food": None, "my_awesome": None}
)
_SOURCE_ROW = {
    "source": HUB_CARDS,
    "repo": "model cards of the Hugging Face Hub",
    "protocol": (
        "fine-tuned by anybody, each in a way of their own; of an author's runs on a dataset the best of each base. "
        "An author's runs of several bases compare among themselves (split: the author), others by dataset"
    ),
    "split": "as far as stated the held-out part; see address",
    "metric": "accuracy, or F1 where no accuracy is stated",
    "license": "facts only",
    "flags": ("self_reported",),
}


@dataclass
class Added:
    """What became of outcomes."""

    index: ZooIndex
    rows: int = 0
    """Scores that are new or changed."""
    tasks: tuple[str, ...] = ()
    """Tasks that are new."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Outcomes left out, by reason."""


def add_outcomes(index: ZooIndex, outcomes: Iterable[Outcome], bases: Mapping[str, str] | None = None) -> Added:
    """Add outcomes to an index, which knows their bases by any name or through a chain of fine-tunes.

    Parameters
    ----------
    index
        What to add to. What it holds of the same repositories is replaced, and of the same series compared.
    outcomes
        What cards say.
    bases
        The bases of further repositories, by their ids, for chains.
    """
    outcomes = list(outcomes)
    chain = {**(bases or {}), **{one.repository: one.base for one in outcomes}}
    resolve, skipped = _Bases(index, chain), Counter[str]()
    tasks = index.by_name(TaskRow)
    known = TaskNames(tasks)
    new: dict[str, dict[str, Any]] = {}
    best = {_key(row.task, row.checkpoint, one): one for row, one in _earlier(index, set(chain))}
    copies = _copies(outcomes)
    for one in outcomes:
        checkpoint = resolve(one.base)
        reason = "a copy of another card" if one in copies else _doubt(one)
        if reason or checkpoint is None:
            skipped[reason or "a base that the index does not know"] += 1
            continue
        row = _task(one, known)
        name = str(row["task"])
        if name not in tasks:
            new[name] = row
        key = _key(name, checkpoint, one)
        if key in best:
            skipped["another run of a series"] += 1
        if key not in best or one.value > best[key].value:
            best[key] = one
    series = defaultdict(set)
    for task, checkpoint, owner, *_ in best:
        series[task, owner].add(checkpoint)
    named = {name for name, row in new.items() if _BY_NAME in row["flags"]}
    named |= {name for name, row in tasks.items() if _BY_NAME in row.flags}
    for lone in [key for key in best if key[0] in named and len(series[key[0], key[2]]) < 2]:
        del best[lone]  # nobody else's runs are of the same data
        skipped["nothing to compare with: only the repository names its data"] += 1
    used = {key[0] for key in best}
    before = {row.key: row for row in index.score_rows}
    index = index.without_scores(HUB_CARDS).add_tasks([row for name, row in new.items() if name in used])
    index = index if HUB_CARDS in index.by_name(SourceRow) else index.add_sources([_SOURCE_ROW])
    index = index.add_scores(_row(index, key, one, alone=len(series[key[0], key[2]]) > 1) for key, one in best.items())
    changed = sum(before.get(row.key) != row for row in index.score_rows if row.source == HUB_CARDS)
    return Added(index, changed, tuple(sorted(new.keys() & used)), skipped)


_Key: TypeAlias = "tuple[str, str, str, str, str]"


def _key(task: str, checkpoint: str, one: Outcome) -> _Key:
    """Return what is the same for all runs of a series."""
    return task, checkpoint, one.owner, str(one.method), one.metric


def _earlier(index: ZooIndex, repositories: set[str]) -> Iterator[tuple[ScoreRow, Outcome]]:
    """What the index holds of other repositories than these."""
    methods = {protocol: method for method, protocol in _PROTOCOLS.items()}
    for row in index.score_rows:
        if row.source == HUB_CARDS and row.source_model not in repositories:
            base = row.checkpoint if row.checkpoint_match == "exact" else ""
            more: dict[str, Any] = {"n_train": row.n_train, "n_test": row.n_test, "address": row.address}
            more |= {"metric": row.metric, "method": methods[row.protocol]}
            yield row, Outcome(str(row.source_model), base, row.task, row.score, **more)


def _row(index: ZooIndex, key: _Key, one: Outcome, *, alone: bool) -> dict[str, Any]:
    task, checkpoint, owner, method, _ = key
    return {
        "task": task,
        "checkpoint": checkpoint,
        "score": one.value,
        "metric": one.metric,
        "protocol": _PROTOCOLS[method],
        "split": as_slug(f"by_{owner}") if alone else "held_out",
        "n_train": one.n_train,
        "n_test": one.n_test,
        "source": HUB_CARDS,
        "source_model": one.repository,
        "checkpoint_match": "exact" if one.base_from != "name" and one.base in index.names else "likely",
        "address": one.address,
        **index.repeated_facts(task, checkpoint, HUB_CARDS),
    }


class _Bases:
    """Finds the weights of the index that a base is, by any name, by the name without its owner, or through chains."""

    def __init__(self, index: ZooIndex, chain: Mapping[str, str]) -> None:
        self._names, self._chain = index.names, chain
        self._tails: dict[str, set[str]] = defaultdict(set)
        for name, row in index.names.items():
            self._tails[name.rpartition("/")[2].lower()].add(row)

    def __call__(self, base: str) -> str | None:
        seen = set[str]()
        while base not in self._names:
            if "/" not in base:
                tails = self._tails.get(base.lower(), set())
                return next(iter(tails)) if len(tails) == 1 else None
            if base in seen or base not in self._chain:
                return None
            seen.add(base)
            base = self._chain[base]
        return self._names[base]


def _task(one: Outcome, known: TaskNames) -> dict[str, Any]:
    """Return the row of an outcome's task: one that the index knows, or that of its data.

    Data that only a repository's name tells are its author's own, whatever others call theirs.
    """
    one = replace(one, dataset=current_id(one.dataset))
    names = [one.dataset, *([plain(one.config)] if one.config else []), plain(one.dataset)]
    if one.dataset_from == "name":  # a word such as ham10000 among others
        names += [word for word in one.dataset.split("_") if len(word) > 5]
    found = known.find(*names)
    if found is not None:
        return {"task": found, "flags": ()}
    by_name = one.dataset_from == "name"
    whole = "_".join(filter(None, (one.owner if by_name else "", one.dataset.replace("/", "_"), one.config)))
    slug = as_slug(whole)
    return {
        "task": slug,
        "title": one.dataset.rpartition("/")[2] if by_name else f"{one.dataset} {one.config or ''}".strip(),
        "domain": "other",
        "source": one.dataset if "/" in one.dataset and not by_name else None,
        "images_from": (slug,),
        "flags": (NAMED_BY_CARD, _BY_NAME) if by_name else (NAMED_BY_CARD,),
    }


def _doubt(one: Outcome) -> str | None:
    """Return why an outcome tells nothing, None if it may."""
    if one.method == "multitask":
        return "trained for several datasets"
    if one.n_test is not None and one.n_test < LEAST_TEST_IMAGES:
        return "a tiny test set"
    if one.value in (0.0, 1.0) and (one.split or "").lower().startswith("train"):
        return "a perfect score on a training split"
    template = "eurosat" if "eurosat" in one.dataset.split("_") else one.dataset
    if one.dataset_from == "name" and template in _TEMPLATES:
        n = _TEMPLATES[template]
        if n is None or len(repr(one.value)) < 8 or not sizes_agree(one.value, n):
            return "a name left over from a notebook"
    return None


def _copies(outcomes: Iterable[Outcome]) -> set[Outcome]:
    """Return outcomes that repeat to the last digit what a repository of another owner says, the first one excepted."""
    first: dict[tuple[Any, ...], Outcome] = {}
    found = set()
    for one in outcomes:
        name = one.repository.partition("/")[2].lower()
        facts = (one.base, one.value, one.split, one.metric)
        same: list[tuple[Any, ...]] = [(name, *facts)]
        if one.learning_rate is not None and one.epochs is not None and one.value < 1.0:
            same.append((one.learning_rate, one.epochs, one.dataset, *facts))
        if any(first.setdefault(key, one).owner != one.owner for key in same):
            found.add(one)
    return found
