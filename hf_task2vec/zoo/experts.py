"""Experts: checkpoints that somebody has fine-tuned from another one on a task, and that may be started from again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_task2vec.zoo.schema import HUB_CARDS, LOCAL_PREFIX

if TYPE_CHECKING:
    from hf_task2vec.zoo.index import ZooIndex


@dataclass(frozen=True)
class Expert:
    """What is stated of a fine-tuned checkpoint."""

    hub_id: str
    base: str
    """The checkpoint that it was fine-tuned from, by any of its names."""
    trained_on: tuple[str, ...]
    """Tasks of the index, or datasets of the Hub."""


def experts_of(index: ZooIndex) -> dict[str, Expert]:
    """Return the experts that an index knows of, by their ids: the repositories behind its scores of the Hub's cards.

    Such a score says which checkpoint a repository was fine-tuned from and on what. Only those of which all weights
    were tuned are checkpoints of their own, and only where the base is known for sure is there something to inherit.
    """
    found: dict[str, Expert] = {}
    for row in index.score_rows:
        name = row.source_model
        if row.source != HUB_CARDS or row.protocol != "full_finetune" or row.checkpoint_match != "exact":
            continue
        if name is None or name in index.names or row.checkpoint.startswith(LOCAL_PREFIX):
            continue
        before = found.get(name, Expert(name, row.checkpoint, ()))
        if before.base == row.checkpoint:
            found[name] = Expert(name, row.checkpoint, (*before.trained_on, row.task))
    return found


def expert_of_card(hub_id: str, card: Mapping[str, Any]) -> Expert | None:
    """Return the expert that the metadata of a card describe: one base, all weights of which were tuned, and data."""
    bases, datasets = _texts(card.get("base_model")), _texts(card.get("datasets"))
    if len(bases) != 1 or not datasets or card.get("base_model_relation") not in (None, "finetune"):
        return None
    return Expert(hub_id, bases[0], datasets)


def _texts(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    return tuple(item.strip() for item in items[:20] if isinstance(item, str) and item.strip())
