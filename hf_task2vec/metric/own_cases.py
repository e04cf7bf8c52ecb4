"""Cases of a user's own: scores in a file, and a dataset folder for each task, that the index has never seen."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hf_task2vec.errors import EvaluationError, Task2VecError
from hf_task2vec.metric.evaluation import Case
from hf_task2vec.metric.observations import checkpoint_features
from hf_task2vec.metric.task_space import TaskSpace
from hf_task2vec.probes import DEFAULT_PROBE

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.zoo import ZooIndex

logger = logging.getLogger(__name__)

COLUMNS = ["task", "checkpoint", "score"]


@dataclass(frozen=True, eq=False)
class OwnCases:
    """A user's cases; checkpoints that the index does not know; and tasks left out, with the reason."""

    cases: tuple[Case, ...]
    unknown: tuple[str, ...]
    skipped: dict[str, str]


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read a CSV file with the columns ``task, checkpoint, score``; scores in [0, 1] or, all of them, in per cent."""
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys(COLUMNS, str))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"the scores {str(path)!r} cannot be read as CSV: {error}") from error
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise EvaluationError(
            f"{str(path)!r} lacks the columns {', '.join(missing)}; found {', '.join(map(str, frame.columns))}"
        )
    frame = frame[COLUMNS].dropna(subset=["task", "checkpoint"])
    score = pd.to_numeric(frame["score"], errors="coerce")
    bad = frame["score"][~score.between(0.0, 100.0)].fillna("nothing")
    if len(bad) or frame.empty:
        shown = f"row {bad.index[0] + 2} holds {bad.iloc[0]!r}" if len(bad) else "it holds no rows"
        raise EvaluationError(f"{str(path)!r}: scores must be numbers in [0, 1], or in per cent; {shown}")
    return frame.assign(score=score / 100.0 if score.max() > 1.0 else score).reset_index(drop=True)


def resolve_checkpoints(names: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Find checkpoints of an index by a name, or by its part after the last ``/`` or ``:`` if only one ends so."""
    ends = Counter(_end(name) for name in known)
    by_end = {_end(name): hub_id for name, hub_id in known.items() if ends[_end(name)] == 1}
    found = {name: known.get(name, by_end.get(_end(name))) for name in names}
    return {name: hub_id for name, hub_id in found.items() if hub_id is not None}


def _end(name: str) -> str:
    return name.replace(":", "/").rsplit("/", 1)[-1]


def own_cases(
    index: ZooIndex,
    scores: pd.DataFrame,
    folder: str | Path,
    *,
    max_samples: int | None = 256,
    seed: int = 0,
    device: str | None = None,
    progress: bool = False,
) -> OwnCases:
    """Pair a user's scores with embeddings of the same tasks, by the index's probe.

    Parameters
    ----------
    index
        Knows the checkpoints.
    scores
        As :func:`read_scores` returns them.
    folder
        Holds a dataset folder for each task, by its name.
    max_samples, seed, device, progress
        As in :func:`~hf_task2vec.selection.select.select_backbone`.
    """
    from hf_task2vec.embedding import Computing, cached_embedding
    from hf_task2vec.tasks import Task, each

    root = Path(folder)
    if not root.is_dir():
        raise EvaluationError(f"{str(root)!r} is no folder; give one that holds a dataset folder for each task")
    resolved = resolve_checkpoints(sorted(set(scores["checkpoint"])), index.names)
    unknown = tuple(sorted(set(scores["checkpoint"]) - set(resolved)))
    known = scores.assign(hub_id=scores["checkpoint"].map(resolved)).dropna(subset="hub_id")
    for (task, hub_id), same in known.groupby(["task", "hub_id"]):
        if len(same) > 1:
            raise EvaluationError(
                f"{' and '.join(map(repr, same['checkpoint']))} on {task!r} are one checkpoint, {hub_id}; keep one "
                "score of it"
            )
    usable: dict[str, pd.DataFrame] = {}
    skipped: dict[str, str] = {}
    for name in dict.fromkeys(scores["task"]):
        part = known[known["task"] == name]
        if len(part) < 2:
            skipped[name] = f"scores of {len(part)} checkpoints that the index knows; two are needed"
        elif not part["score"].max() > 0.0:
            skipped[name] = "no checkpoint scored above 0"
        elif not (Path(name).name == name != ".." and (root / name).is_dir()):
            skipped[name] = "no folder of that name"
        else:
            usable[name] = part
    reference, facts = index.embeddings, index.checkpoints.set_index("hub_id", drop=False)
    space, probe = TaskSpace.fit(reference), reference.probe["name"]
    cases = []
    for name, part in each(usable.items(), "embedding", "task", shown=progress):
        try:
            embedding = cached_embedding(
                Task.from_dataset(str(root / name), max_samples=max_samples, seed=seed),
                None if probe == DEFAULT_PROBE else probe,
                known_hash=reference.weights_hash,
                seed=seed,
                computing=Computing(device, progress=progress),
            )
        except Task2VecError as error:
            logger.warning("%s cannot be embedded: %s", name, error)
            skipped[name] = str(error)
            continue
        candidates = checkpoint_features(facts.loc[list(part["hub_id"])])
        cases.append(Case(name, space.of_embedding(embedding), candidates, part["score"].to_numpy(dtype=np.float64)))
    if not cases:
        reasons = [f"{name}: {why}" for name, why in list(skipped.items())[:5]]
        reasons += [f"the index does not know {', '.join(unknown[:5])}"] if unknown else []
        raise EvaluationError(f"no task can be judged ({'; '.join(reasons)})")
    return OwnCases(tuple(cases), unknown, skipped)
