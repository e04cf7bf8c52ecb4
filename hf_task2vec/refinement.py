"""The second stage: measure a few promising candidates on the user's own sample, and rank again."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from hf_task2vec.errors import Task2VecError
from hf_task2vec.labels import score_name
from hf_task2vec.limits import Budget
from hf_task2vec.prediction import Prediction
from hf_task2vec.ranking import Ranking, percent
from hf_task2vec.transfer import check_measurable, linear_probe
from hf_task2vec.transferability import Score

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.task import Task

logger = logging.getLogger(__name__)

# Candidates looked at for the next measurement: the rest have next to no chance of being best.
_SHORT_LIST = 64
_BYTES_PER_PARAMETER = 4


def check_refinable(task: Task) -> None:
    """Raise LabelError if candidates cannot be measured on a task."""
    check_measurable(task)


def expected_improvement(prediction: Prediction, best: float, rows: np.ndarray) -> np.ndarray:
    """Expected gain in logits over `best` of the candidates at `rows` (Jones et al. 1998, equation 15)."""
    from scipy.special import ndtr

    sd = np.sqrt(prediction.variance(rows))
    gain = prediction.mean[rows] - best
    z = gain / sd
    improvement: np.ndarray = gain * ndtr(z) + sd * np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    return improvement


def next_candidate(
    prediction: Prediction, measured: Collection[str], allowed: Collection[str], known: Collection[str] = ()
) -> str | None:
    """Return the allowed candidate whose measurement promises most, or None if none is left.

    The first is the one predicted best. Later ones are those with the largest expected improvement over the best of the
    measured ones and of those whose accuracy is `known` anyway: a candidate that is a little worse but uncertain may
    be worth more than one that is known.
    """
    rows = np.array([i for i, name in enumerate(prediction.ids) if name in allowed], dtype=np.int64)
    if not len(rows):
        return None
    mean = prediction.mean
    rows = rows[np.argsort(-mean[rows], kind="stable")[:_SHORT_LIST]]
    if not measured:
        return prediction.ids[rows[0]]
    best = max(mean[i] for i, name in enumerate(prediction.ids) if name in measured or name in known)
    return prediction.ids[rows[int(np.argmax(expected_improvement(prediction, best, rows)))]]


def refine_ranking(
    ranking: Ranking,
    task: Task,
    k: int,
    *,
    checkpoints: pd.DataFrame,
    predict: Callable[[Mapping[str, Score]], Prediction],
    rerank: Callable[[Mapping[str, Score]], Ranking],
    known: Collection[str] = (),
    budget: Budget | None = None,
    device: str | None = None,
    token: str | None = None,
    progress: bool = False,
) -> Ranking:
    """Measure up to `k` candidates, each chosen in the light of those before, and rank all again.

    Each is measured by :func:`~hf_task2vec.transfer.linear_probe`. The metric takes that as one more observation, so
    what is learned of one candidate tells of those like it. A candidate that cannot be loaded or measured keeps its
    prediction, with the reason among the warnings, and another is tried, `2k` in all.

    Parameters
    ----------
    ranking
        First-stage ranking.
    task
        The sample that the ranking is for.
    k
        Candidates to download and measure, ≥ 1.
    checkpoints
        The candidates' rows of ``checkpoints.csv``.
    predict, rerank
        Give the prediction and the ranking for accuracies measured so far.
    known
        Candidates whose accuracy on the sample both know already, such as the probe: they are not measured again.
    budget
        Limits on bytes and time; by default none.
    device
        Torch device of the candidates; None takes a GPU if there is one.
    token, progress
        As in :func:`~hf_task2vec.selection.select_backbone`.

    Raises
    ------
    LabelError
        No label varies in the sample.
    """
    from hf_task2vec.devices import default_device

    check_refinable(task)
    device = device if device is not None else default_device()
    known = set(checkpoints["hub_id"]) & set(known)
    left = set(checkpoints["hub_id"]) - known
    spending = _Spending(budget if budget is not None else Budget(), checkpoints)
    measured: dict[str, Score] = {}
    failures: dict[str, str] = {}
    notes: list[str] = []
    with tqdm(total=k, desc="measuring", unit="model", disable=not progress, leave=False) as bar:
        while left and len(measured) < k and len(measured) + len(failures) < 2 * k:
            affordable = spending.affordable(left)
            if reason := spending.reason_to_stop(affordable):
                notes.append(f"stopped after {len(measured)} of {k} measurements: {reason}")
                break
            name = next_candidate(predict(measured), measured, affordable, known)
            if name is None:
                break
            left.discard(name)
            spending.add(name)
            logger.info("loading %s", name)
            try:
                score = linear_probe(name, task, device=device, token=token, progress=progress)
            except Task2VecError as error:
                logger.info("%s cannot be measured: %s", name, error)
                failures[name] = f"{name} was not measured: {error}"
                continue
            measured[name] = score
            bar.update()
    refined = rerank(measured)
    summary = _summary(refined, ranking, measured, failures, score_name(task.label_kind))
    return replace(refined, summary=summary, warnings=(*refined.warnings, *failures.values(), *notes))


class _Spending:
    """What has been spent of a budget."""

    def __init__(self, budget: Budget, checkpoints: pd.DataFrame) -> None:
        self._budget, self._started = budget, time.monotonic()
        self._bytes, self._count = 0.0, 0
        # Candidates of unknown size fit into no limit.
        params = checkpoints["params_m"].to_numpy(dtype=np.float64, na_value=np.inf)
        sizes = (_BYTES_PER_PARAMETER * 1e6 * params).tolist()
        self._sizes: dict[str, float] = dict(zip(checkpoints["hub_id"], sizes, strict=True))

    def add(self, name: str) -> None:
        """Count the download of a candidate, whether or not it can be measured then."""
        self._bytes += self._sizes[name]
        self._count += 1

    def affordable(self, names: Collection[str]) -> set[str]:
        """Return the candidates that fit into what is left of the bytes."""
        limit = self._budget.max_bytes
        return {name for name in names if limit is None or self._bytes + self._sizes[name] <= limit}

    def reason_to_stop(self, affordable: Collection[str]) -> str:
        """Say why no further measurement may start, or nothing."""
        elapsed, limit = time.monotonic() - self._started, self._budget.max_seconds
        if limit is not None and elapsed + elapsed / max(self._count, 1) > limit:
            return f"{elapsed:.0f} s of {limit:g} s spent"
        if not affordable:
            return f"no candidate of known size fits into what is left of {self._budget.max_bytes:g} bytes"
        return ""


def _summary(
    after: Ranking, before: Ranking, measured: Mapping[str, Score], failed: Collection[str], score: str
) -> str:
    if not measured:
        return f"No candidate could be measured. {before.summary}"
    best = after.best
    text = f"{len(measured)} candidate{'s' * (len(measured) > 1)} measured on the sample. Take {best.hub_id}: "
    interval = f"80 % interval {percent(best.low)} to {percent(best.high)}"
    if best.measured is not None:
        text += (
            f"{score} {percent(best.measured)} % measured, {percent(best.score)} % ({interval}) with the prediction."
        )
    else:
        why = "it could not be measured (see the warnings)" if best.hub_id in failed else "it was not measured itself"
        text += f"{score} {percent(best.score)} % ({interval}) predicted, but {why}. "
        name = max(measured, key=lambda hub_id: measured[hub_id].value)
        text += f"The best of those measured is {name}: {percent(measured[name].value)} %."
    if best.hub_id != before.best.hub_id:
        text += f" Before measuring, {before.best.hub_id} was first."
    return text
