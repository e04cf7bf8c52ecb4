"""The second stage: measure a few promising candidates on the user's own sample."""

from __future__ import annotations

import logging
import math
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


def measure_promising(
    predict: Callable[[Mapping[str, Score]], Prediction],
    checkpoints: pd.DataFrame,
    task: Task,
    k: int,
    *,
    known: Collection[str] = (),
    budget: Budget = Budget(),  # noqa: B008 (frozen)
    computing: Computing = Computing(),  # noqa: B008 (frozen)
) -> Measurements:
    """Measure up to `k` candidates, each chosen in the light of those before.

    Each is measured by :func:`~hf_task2vec.linear_probe`. The metric takes that as one more observation, so
    what is learned of one candidate tells of those like it. A candidate that cannot be loaded or measured keeps its
    prediction, and another is tried, `2k` in all.

    `predict` gives the prediction for what was measured so far; `checkpoints` are rows of ``checkpoints.csv``; those
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
    measured = measure_promising(predict, checkpoints, task, k, known=known, budget=budget, computing=computing)
    before, after = recommender.rank({}, top_k=1), recommender.rank(measured.scores, top_k=top_k)
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
