"""Fine-tuned checkpoints as candidates: whom they inherit from, and how near the task is to what they were tuned on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from hf_task2vec.embedding import TaskEmbedding, pairwise
from hf_task2vec.errors import Task2VecError
from hf_task2vec.metric import EXPERT_GAIN, Heirs, embedded_as
from hf_task2vec.zoo import CheckpointRow, Expert, TaskNames, TaskRow, as_slug, current_id, experts_of, plain

if TYPE_CHECKING:
    from hf_task2vec.zoo import ZooIndex

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Experts:
    """Fine-tuned checkpoints whose bases an index knows, and of whose training sets there are embeddings.

    Attributes
    ----------
    index
        What knows the bases and the reference tasks.
    by_id
        The experts; their bases are rows of the index, and each was trained on embedded tasks of it or on `datasets`.
    datasets
        Embeddings from repositories of datasets on the Hub.
    """

    index: ZooIndex
    by_id: Mapping[str, Expert]
    datasets: Mapping[str, TaskEmbedding] = field(default_factory=dict)

    @classmethod
    def of(
        cls, index: ZooIndex, named: Iterable[Expert], asked: Sequence[str] | None, token: str | None = None
    ) -> Experts:
        """Find those of an index, and of the `named` ones, that are known well enough; `asked` limits the ids."""
        known, tasks = experts_of(index), _Tasks(index, token)
        wanted = known if asked is None else {name: known[name] for name in asked if name in known}
        found = dict[str, Expert]()
        for expert in (wanted | {expert.hub_id: wanted.get(expert.hub_id, expert) for expert in named}).values():
            base = index.names.get(expert.base)
            on = () if base is None else tuple(filter(None, map(tasks.find, expert.trained_on)))
            if base is not None and on:
                found[expert.hub_id] = replace(expert, base=base, trained_on=on)
            elif expert.hub_id not in known:
                lacks = f"its base {expert.base}" if base is None else f"an embedding of {', '.join(expert.trained_on)}"
                logger.warning("%s is no expert here: the index does not know %s", expert.hub_id, lacks)
        return cls(index, found, {name: table for name, table in tasks.pulled.items() if table is not None})

    def rows(self, facts: Iterable[CheckpointRow]) -> list[CheckpointRow]:
        """Return a row of ``checkpoints.csv`` for each: of the `facts` that are known, else those shared with its base.

        They have seen what the base and they themselves were trained on.
        """
        own, bases, found = {row.hub_id: row for row in facts}, self.index.by_name(CheckpointRow), []
        shared = {"aliases": (), "library": "other", "license": None, "gated": None, "in1k_top1": None}
        for name, expert in self.by_id.items():
            base = bases[expert.base]
            row = own.get(name) or base.model_copy(update={"hub_id": name, "in1k_linear_probe": None, **shared})
            seen = {
                *base.trained_on,
                *row.trained_on,
                *(slug for task in expert.trained_on for slug in self._from(task)),
            }
            found.append(row.model_copy(update={"trained_on": tuple(sorted(seen))}))
        return found

    def _from(self, task: str) -> tuple[str, ...]:
        """Datasets that the images of a task are from."""
        row = self.index.by_name(TaskRow).get(task)
        return (as_slug(task.rpartition("/")[2]),) if row is None else row.images_from

    def similar(self, embedding: TaskEmbedding) -> dict[str, float]:
        """Return the similarity of an embedded task to each reference task and further training set."""
        table = self.index.embeddings
        similar = dict(zip(table.names, (1.0 - pairwise(embedding, to=table)[0]).tolist(), strict=True))
        return similar | {name: float(1.0 - pairwise(embedding, to=of)[0, 0]) for name, of in self.datasets.items()}

    def nearest(self, hub_id: str, similar: Mapping[str, float]) -> str:
        """Return the training set of an expert that is most similar to the task."""
        return max(self.by_id[hub_id].trained_on, key=similar.__getitem__)

    def heirs(self, similar: Mapping[str, float], ids: Sequence[str], judged: Sequence[str]) -> Heirs:
        """Say how checkpoints inherit from those that are `judged` by themselves, on a task of known similarities."""
        position = {name: row for row, name in enumerate(judged)}
        tuned = [self.by_id.get(name) for name in ids]
        base = [position[name if expert is None else expert.base] for name, expert in zip(ids, tuned, strict=True)]
        gain = [0.0 if expert is None else self._gain(expert, similar) for expert in tuned]
        variance = [0.0 if expert is None else EXPERT_GAIN.deviation**2 for expert in tuned]
        return Heirs(tuple(ids), np.array(base, dtype=np.int64), np.array(gain), np.array(variance))

    def _gain(self, expert: Expert, similar: Mapping[str, float]) -> float:
        tasks, seen = self.index.by_name(TaskRow), set(self.index.by_name(CheckpointRow)[expert.base].trained_on)
        of_base = [
            likeness
            for name, likeness in similar.items()
            if name in tasks and not seen.isdisjoint(tasks[name].images_from)
        ]
        return EXPERT_GAIN.expected(similar[self.nearest(expert.hub_id, similar)], max(of_base, default=None))


class _Tasks:
    """Finds embeddings of training sets: of the index, or from their own repositories on the Hub."""

    def __init__(self, index: ZooIndex, token: str | None) -> None:
        self._token, self._hash = token, index.embeddings.weights_hash
        self._embedded = {name: name for name in index.embeddings.names} | {
            name: task for name, task in embedded_as(index).items() if task in index.embeddings.names
        }
        self._not_embedded = index.by_name(TaskRow).keys() - self._embedded.keys()
        self._names = TaskNames(index.by_name(TaskRow))
        self.pulled: dict[str, TaskEmbedding | None] = {}

    def find(self, name: str) -> str | None:
        """Return the name of the embedding of a task or dataset; None if there is none."""
        known = name if name in self._embedded else self._names.find(current_id(name), plain(name))
        if known in self._embedded or known in self._not_embedded:
            return self._embedded.get(known)
        if name not in self.pulled:
            self.pulled[name] = self._pull(name)
        return None if self.pulled[name] is None else name

    def _pull(self, dataset: str) -> TaskEmbedding | None:
        try:
            found = TaskEmbedding.from_pretrained(dataset, token=self._token)
        except Task2VecError as error:
            logger.info("no embedding of %s: %s", dataset, error)
            return None
        return found if found.weights_hash == self._hash else None
