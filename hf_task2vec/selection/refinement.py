"""The second stage: measure a few promising candidates on the user's own sample."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from hf_task2vec.embedding import Computing
from hf_task2vec.errors import Task2VecError
from hf_task2vec.metric import Prediction
from hf_task2vec.probes import Score, linear_probe
from hf_task2vec.selection.limits import Budget
from hf_task2vec.selection.ranking import Ranking, percent
from hf_task2vec.selection.shortlist import Contenders
from hf_task2vec.tasks import bar, say

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.selection.recommendation import Recommender
    from hf_task2vec.tasks import Task

logger = logging.getLogger(__name__)

# Candidates looked at for the next measurement: the rest have next to no chance of being best.
_SHORT_LIST = 64
_BYTES_PER_PARAMETER = 4


@dataclass(frozen=True)
class Measurements:
    """What was measured of the candidates, why others could not be, and why measuring stopped early."""

    scores: dict[str, Score] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def next_candidate(
    prediction: Prediction, measured: Collection[str], allowed: Collection[str], known: Collection[str] = ()
) -> str | None:
    """Return the allowed candidate whose measurement promises most, or None if none is left.

    That is how a short list goes on, see :meth:`Contenders.choose`: the first is the one predicted best, and each later
    one adds most to the expected maximum of those measured and those whose accuracy is `known` anyway. A candidate that
    is a little worse but uncertain may be worth more than one that is known, and siblings come last.
    """
    done = np.array([i for i, name in enumerate(prediction.ids) if name in measured or name in known], dtype=np.int64)
    rows = np.array([i for i, name in enumerate(prediction.ids) if name in allowed], dtype=np.int64)
    rows = rows[np.argsort(-prediction.mean[rows], kind="stable")[:_SHORT_LIST]]
    if not len(rows):
        return None
    if not measured:
        return prediction.ids[rows[0]]
    rows = np.concatenate([done, rows[~np.isin(rows, done)]])
    near = Contenders.of(prediction, rows)
    found = near.next(range(len(done)))
    return prediction.ids[rows[len(done) if found is None else found]]


def measure_promising(
    predict: Callable[[Mapping[str, Score]], Prediction],
    checkpoints: pd.DataFrame,
    task: Task,
    k: int,
    *,
    first: str | None = None,
    known: Collection[str] = (),
    budget: Budget = Budget(),  # noqa: B008 (frozen)
    computing: Computing = Computing(),  # noqa: B008 (frozen)
) -> Measurements:
    """Measure up to `k` candidates, each chosen in the light of those before.

    Each is measured by :func:`~hf_task2vec.linear_probe`. The metric takes that as one more observation, so
    what is learned of one candidate tells of those like it. A candidate that cannot be loaded or measured keeps its
    prediction, and another is tried, `2k` in all.

    `predict` gives the prediction for what was measured so far; `first` is the candidate to begin with, by default the
    one predicted best; `checkpoints` are rows of ``checkpoints.csv``; those
    whose accuracy is `known` already, such as the probe's, are not measured again.
    """
    from hf_task2vec.probes import default_device

    device, token, progress = computing.device or default_device(), computing.token, computing.progress
    known = set(checkpoints["hub_id"]) & set(known)
    left = set(checkpoints["hub_id"]) - known
    # Candidates of unknown size fit into no limit.
    params = checkpoints["params_m"].to_numpy(dtype=np.float64, na_value=np.inf)
    sizes = dict(zip(checkpoints["hub_id"], _BYTES_PER_PARAMETER * 1e6 * params, strict=True))
    say("measuring %d candidates", k)
    found, spent, started = Measurements(), 0.0, time.monotonic()
    with bar("measuring", "model", k, shown=progress) as counter:
        while left and len(found.scores) < k and (tried := len(found.scores) + len(found.failures)) < 2 * k:
            most, seconds, elapsed = budget.max_bytes, budget.max_seconds, time.monotonic() - started
            affordable = {name for name in left if most is None or spent + sizes[name] <= most}
            reason = ""
            if seconds is not None and elapsed + elapsed / max(tried, 1) > seconds:
                reason = f"{elapsed:.0f} s of {seconds:g} s spent"
            elif not affordable:
                reason = f"no candidate of known size fits into what is left of {most:g} bytes"
            if reason:
                found.notes.append(f"stopped after {len(found.scores)} of {k} measurements: {reason}")
                break
            if not tried and first in affordable:
                name = first
            else:
                name = next_candidate(predict(found.scores), found.scores, affordable, known)
            if name is None:
                break
            left.discard(name)
            spent += sizes[name]  # whether or not it can be measured then
            logger.debug("loading %s", name)
            try:
                found.scores[name] = linear_probe(name, task, device=device, token=token, progress=progress)
            except Task2VecError as error:
                logger.info("%s cannot be measured: %s", name, error)
                found.failures[name] = f"{name} was not measured: {error}"
                continue
            counter.update()
    return found


def refine_ranking(
    recommender: Recommender, task: Task, k: int, budget: Budget, computing: Computing, *, top_k: int
) -> Ranking:
    """Measure up to `k` candidates, rank all again with that, and say what changed."""
    predict, checkpoints, known = recommender.predict, recommender.checkpoints, recommender.known
    before = recommender.rank({}, top_k=1)
    measured = measure_promising(
        predict, checkpoints, task, k, first=before.best.hub_id, known=known, budget=budget, computing=computing
    )
    after = recommender.rank(measured.scores, top_k=top_k)
    notes = (*after.warnings, *measured.failures.values(), *measured.notes)
    return replace(after, summary=_summary(before, after, measured), warnings=notes)


def _summary(before: Ranking, after: Ranking, measured: Measurements) -> str:
    if not measured.scores:
        return f"No candidate could be measured. {before.summary}"
    best, score = after.best, after.score_name
    count = len(measured.scores)
    text = f"{count} candidate{'s' * (count > 1)} measured on the sample. Take {best.hub_id}: "
    interval = f"80 % interval {percent(best.low)} to {percent(best.high)}"
    if best.measured is not None:
        text += (
            f"{score} {percent(best.measured)} % measured, {percent(best.score)} % ({interval}) with the prediction."
        )
    else:
        failed = best.hub_id in measured.failures
        why = "it could not be measured (see the warnings)" if failed else "it was not measured itself"
        text += f"{score} {percent(best.score)} % ({interval}) predicted, but {why}. "
        name = max(measured.scores, key=lambda hub_id: measured.scores[hub_id].value)
        text += f"The best of those measured is {name}: {percent(measured.scores[name].value)} %."
    if best.hub_id != before.best.hub_id:
        text += f" Before measuring, {before.best.hub_id} was first."
    return text
