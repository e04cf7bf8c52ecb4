"""Judge metrics by a user's own scores, on tasks that the index has never seen."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hf_task2vec.bundled import DEFAULT_PROBE
from hf_task2vec.errors import EvaluationError, Task2VecError
from hf_task2vec.evaluation import Case
from hf_task2vec.observations import checkpoint_features
from hf_task2vec.task_space import TaskSpace

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.zoo import ZooIndex

logger = logging.getLogger(__name__)

COLUMNS = ("task", "checkpoint", "score")


@dataclass(frozen=True, eq=False)
class OwnCases:
    """A user's cases, and what of them could not be used.

    Attributes
    ----------
    cases
        One per usable task.
    unknown
        Checkpoints of the scores that the index does not know.
    skipped
        Tasks left out, with the reason.
    """

    cases: tuple[Case, ...]
    unknown: tuple[str, ...]
    skipped: Mapping[str, str]


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read a CSV file with the columns ``task, checkpoint, score``; scores in [0, 1] or, all of them, in per cent.

    Raises
    ------
    EvaluationError
        The file cannot be read, lacks a column, or holds scores that are not numbers in [0, 100] or are given twice.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys(COLUMNS, str))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"the scores {str(path)!r} cannot be read as CSV: {error}") from error
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise EvaluationError(
            f"{str(path)!r} lacks the columns {', '.join(missing)}; found {', '.join(map(str, frame.columns))}"
        )
    frame = frame[list(COLUMNS)].dropna(subset=["task", "checkpoint"])
    score = pd.to_numeric(frame["score"], errors="coerce")
    bad = frame[~score.between(0.0, 100.0)]
    if len(bad) or frame.empty:
        shown = f"row {bad.index[0] + 2} holds {_shown(bad['score'].iloc[0])}" if len(bad) else "it holds no rows"
        raise EvaluationError(f"{str(path)!r}: scores must be numbers in [0, 1], or in per cent; {shown}")
    doubled = frame[frame.duplicated(["task", "checkpoint"])]
    if len(doubled):
        raise EvaluationError(
            f"{str(path)!r} gives {doubled['checkpoint'].iloc[0]!r} on {doubled['task'].iloc[0]!r} more than once; "
            "keep one score of each"
        )
    return frame.assign(score=score / 100.0 if score.max() > 1.0 else score).reset_index(drop=True)


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else "nothing"


def resolve_checkpoints(names: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Find checkpoints of an index by id, or by the part of it after the last ``/`` or ``:`` if only one ends so."""
    ids = set(known)
    by_end: dict[str, list[str]] = {}
    for hub_id in known:
        by_end.setdefault(_end(hub_id), []).append(hub_id)
    found = {}
    for name in names:
        ends = by_end.get(_end(name), [])
        if name in ids:
            found[name] = name
        elif len(ends) == 1:
            found[name] = ends[0]
    return found


def _end(name: str) -> str:
    return name.replace(":", "/").rsplit("/", 1)[-1]


def find_tasks(folder: str | Path, names: Sequence[str]) -> dict[str, Path]:
    """Find each task's dataset: the folder of that name under `folder`.

    Raises
    ------
    EvaluationError
        `folder` is no folder, or holds none of the tasks.
    """
    root = Path(folder)
    if not root.is_dir():
        raise EvaluationError(f"{str(root)!r} is no folder; give one that holds a dataset folder for each task")
    found = {name: root / name for name in names if _inside(name) and (root / name).is_dir()}
    if not found:
        inside = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir())[:8]) or "no folders"
        raise EvaluationError(
            f"{str(root)!r} holds no folder named as a task of the scores ({', '.join(names[:5])}); it has {inside}"
        )
    return found


def _inside(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\\" not in name


def known_scores(index: ZooIndex, scores: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Keep the scores of checkpoints that an index knows.

    Parameters
    ----------
    index
        Knows the checkpoints.
    scores
        As :func:`read_scores` returns them.

    Returns
    -------
    tuple
        The scores with one more column, ``hub_id``, and the names that the index does not know, sorted.

    Raises
    ------
    EvaluationError
        No task has scores of two known checkpoints, or one has several of the same under other names.
    """
    names = sorted(set(scores["checkpoint"]))
    resolved = resolve_checkpoints(names, list(index.checkpoints["hub_id"]))
    unknown = tuple(name for name in names if name not in resolved)
    known = scores[scores["checkpoint"].isin(set(resolved))]
    known = known.assign(hub_id=[resolved[name] for name in known["checkpoint"]])
    doubled = known[known.duplicated(["task", "hub_id"], keep=False)]
    if len(doubled):
        first = doubled[(doubled["task"] == doubled["task"].iloc[0]) & (doubled["hub_id"] == doubled["hub_id"].iloc[0])]
        raise EvaluationError(
            f"{' and '.join(map(repr, first['checkpoint']))} on {first['task'].iloc[0]!r} are one checkpoint, "
            f"{first['hub_id'].iloc[0]}; keep one score of it"
        )
    if not (known.groupby("task").size() >= 2).any():
        raise EvaluationError(
            "no task can be judged: none has scores of two checkpoints that the index knows"
            + (f"; it does not know {', '.join(unknown[:5])}" if unknown else "")
        )
    return known, unknown


def own_cases(
    index: ZooIndex, scores: pd.DataFrame, embeddings: Mapping[str, TaskEmbedding], failed: Mapping[str, str]
) -> OwnCases:
    """Pair a user's scores with embeddings of the same tasks.

    Parameters
    ----------
    index
        Knows the checkpoints.
    scores
        As :func:`read_scores` returns them.
    embeddings
        By task.
    failed
        Tasks that could not be embedded, with the reason.

    Raises
    ------
    EvaluationError
        No task is left with two known checkpoints.
    ProbeMismatchError
        An embedding comes from another probe than the index's.
    """
    space = TaskSpace.fit(index.embeddings())
    known, unknown = known_scores(index, scores)
    facts = index.checkpoints.set_index("hub_id", drop=False)
    skipped, cases = dict(failed), []
    for name in dict.fromkeys(scores["task"]):
        part = known[known["task"] == name]
        score = part["score"].to_numpy(dtype=np.float64)
        if name in skipped:
            continue
        if len(part) < 2:
            skipped[name] = f"scores of {len(part)} known checkpoints; two are needed"
        elif not score.max() > 0.0:
            skipped[name] = "no checkpoint scored above 0"
        elif name not in embeddings:
            skipped[name] = "no folder of that name"
        else:
            task = space.of_embedding(embeddings[name])
            cases.append(Case(name, task, checkpoint_features(facts.loc[list(part["hub_id"])]), score))
    if not cases:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:5])
        raise EvaluationError(f"no task can be judged ({reasons})")
    return OwnCases(tuple(cases), unknown, skipped)


def embed_tasks(
    folders: Mapping[str, Path],
    index: ZooIndex,
    *,
    max_samples: int | None = 256,
    seed: int = 0,
    device: str | None = None,
    progress: bool = False,
) -> tuple[dict[str, TaskEmbedding], dict[str, str]]:
    """Embed datasets with the index's probe, or take them from the cache: embeddings, and reasons of failures."""
    from tqdm.auto import tqdm

    from hf_task2vec.cache import cached_embedding
    from hf_task2vec.task import Task

    reference = index.embeddings()
    found: dict[str, TaskEmbedding] = {}
    failed: dict[str, str] = {}
    for name, folder in tqdm(folders.items(), desc="embedding", unit="task", disable=not progress, leave=False):
        try:
            task = Task.from_dataset(str(folder), max_samples=max_samples, seed=seed)
            found[name] = cached_embedding(
                task,
                None if reference.probe == DEFAULT_PROBE else reference.probe,
                known_hash=reference.weights_hash,
                seed=seed,
                device=device,
                progress=progress,
            )
        except Task2VecError as error:
            logger.warning("%s cannot be embedded: %s", name, error)
            failed[name] = str(error)
    return found, failed
