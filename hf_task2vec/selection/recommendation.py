"""From a prediction to a recommendation: accuracies, intervals, facts, warnings and a summary in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.embedding import DESCRIPTORS
from hf_task2vec.errors import EmbeddingError
from hf_task2vec.metric import Prediction, checkpoint_features, log_logistic, logit
from hf_task2vec.probes import Score
from hf_task2vec.selection.explanation import FAR, explain
from hf_task2vec.selection.fitness import can_judge, chance, weaknesses
from hf_task2vec.selection.ranking import COLUMNS, HALF_WIDTH_80, Ranking, TaskGain
from hf_task2vec.selection.shortlist import LOOKED_AT, SIZES, Contenders, looked_at
from hf_task2vec.tasks import counted, score_name
from hf_task2vec.zoo import plain

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.metric import Metric
    from hf_task2vec.selection.explanation import Explanation
    from hf_task2vec.selection.limits import Eligible

Array = NDArray[np.float64]

#: How an accuracy under a protocol is called.
PROTOCOL_WORDS = {"fine-tune": "after fine-tuning", "linear-probe": "of a linear probe"}
# How many the summary advises to measure.
_MEASURED = 3
#: From this similarity on a reference task is taken for the user's own dataset. On the shipped index different
#: datasets reach 0.92, and other 256 images of the same one 0.95 and more.
SAME_DATASET = 0.94


class Recommender:
    """Ranks checkpoints for one embedded task and a protocol, in the light of what was measured on the task."""

    def __init__(
        self,
        embedding: TaskEmbedding,
        metric: Metric,
        eligible: Eligible,
        protocol: str,
        domain: str | None = None,
    ) -> None:
        import pandas as pd

        check_descriptors(embedding)
        self.embedding, self.metric, self.eligible = embedding, metric, eligible
        self.protocol, self.domain = protocol, domain
        self.index, self.checkpoints = index, checkpoints = eligible.index, eligible.checkpoints
        self.score_name = score_name(embedding.task.get("label_kind"))
        self._judged, self._chance = can_judge(embedding.task), chance(embedding.task)
        # The probe's accuracy on this very task is known already, whether or not it may be recommended.
        probe = index.checkpoints[index.checkpoints["hub_id"] == index.names.get(embedding.probe["name"])]
        self.known = {str(name): probe_score(embedding.descriptors) for name in probe["hub_id"]}
        if not probe["hub_id"].isin(checkpoints["hub_id"]).all():
            checkpoints = pd.concat([checkpoints, probe], ignore_index=True)
        task = metric.space.of_embedding(embedding)
        self._task = task if domain is None else task.of_kind(domain)
        self._similar, self._heirs = dict[str, float](), None
        if (experts := eligible.experts) is not None:
            # Experts are judged by their bases, be these candidates or not.
            ids = checkpoints["hub_id"].tolist()
            bases = index.checkpoints["hub_id"].isin({expert.base for expert in experts.by_id.values()} - set(ids))
            own = ~checkpoints["hub_id"].isin(experts.by_id)
            checkpoints = pd.concat([checkpoints[own], index.checkpoints[bases]], ignore_index=True)
            self._similar = experts.similar(embedding)
            self._heirs = experts.heirs(self._similar, ids, checkpoints["hub_id"].tolist())
        self._features = checkpoint_features(checkpoints)

    def predict(self, measured: Mapping[str, Score]) -> Prediction:
        """Predict the standing of all candidates, and of the probe if the index knows it, given measurements."""
        known = self.known | dict(measured) if self._judged else {}
        prediction = self.metric.predict_features(self._task, self._features, known, self.protocol, self._heirs)
        if not self._judged:
            residual, heirs = np.zeros_like(prediction.residual), prediction.heirs
            heirs = heirs and replace(heirs, gain=np.zeros_like(heirs.gain))
            return replace(prediction, residual=residual, task_weight=0.0, heirs=heirs)
        return prediction

    def rank(self, measured: Mapping[str, Score], *, top_k: int) -> Ranking:
        """Rank the checkpoints by predictions and measurements together."""
        prediction = self.predict(measured)
        order = self._order(prediction)
        table = self._table(prediction, order, measured)
        ranking = Ranking(
            table=table,
            top_k=min(top_k, len(table)),
            dataset=self.embedding.name,
            summary="",
            warnings=(),
            contenders=self._contenders(prediction, order),
            task_gain=_task_gain(prediction, table["score"].to_numpy(), order),
            provenance={
                "task": self.embedding.task,
                "descriptors": self.embedding.descriptors,
                "probe": self.embedding.probe,
                "embedding": self.embedding.config,
                "index": self.index.fingerprint,
                "metric": self.metric.name,
                "protocol": self.protocol,
                "domain": self.domain,
                "score": self.score_name,
                "versions": self.embedding.versions,
                **self.eligible.provenance,
            },
        )
        shown = {c.rank - 1 for c in (*ranking.candidates, *(pick.candidate for pick in ranking.shortlist()))}
        rows = order[sorted(shown)]
        return replace(
            ranking,
            summary=self._summary(ranking),
            warnings=(
                *self._warnings(prediction.task_weight),
                *self._leakage(self.checkpoints.iloc[rows].to_dict("records")),
            ),
            explanations=self._explanations(table.iloc[sorted(shown)], rows),
        )

    def _order(self, prediction: Prediction) -> NDArray[np.int64]:
        """The rows of `prediction` that may be recommended, best first.

        What is not known well is no answer: the first is of known size and licence, if one such is as good as the best.
        """
        count = len(self.checkpoints)
        order = np.lexsort((self.checkpoints["hub_id"].to_numpy(), -prediction.mean[:count]))
        if not self._known[order[0]]:
            first, near = order[0], order[:LOOKED_AT]
            behind = prediction.mean[first] - prediction.mean[near]
            as_good = behind**2 <= prediction.variance_of_differences(int(first), near)
            leads = np.flatnonzero(self._known[near] & as_good)[:1]
            order = np.concatenate([order[leads], np.delete(order, leads)])
        return order

    @cached_property
    def _known(self) -> NDArray[np.bool_]:
        return self.checkpoints[["params_m", "license"]].notna().all(axis=1).to_numpy()

    def _contenders(self, prediction: Prediction, order: NDArray[np.int64]) -> Contenders:
        size = 1e6 * self.checkpoints["params_m"].to_numpy(dtype=np.float64, na_value=np.inf)[order]
        position = looked_at(size)
        rows = order[position]
        return Contenders.of(prediction, rows, position, size[position], self._known[rows])

    def _explanations(self, rows: pd.DataFrame, at: NDArray[np.int64]) -> dict[str, Explanation]:
        titles = dict(zip(self.index.tasks["task"], self.index.tasks["title"], strict=True))
        found = explain(
            self.metric,
            self._task,
            self._features.take(at if self._heirs is None else self._heirs.base[at]),
            self.protocol,
            rows["score"].to_numpy(),
            rows["prior"].to_numpy(),
            titles,
            self.score_name,
            rows["hub_id"].tolist(),
        )
        for name in found.keys() & (self.eligible.experts.by_id if self.eligible.experts else {}):
            found[name] = replace(found[name], heritage=rows.loc[rows["hub_id"] == name, "evidence"].item())
        return found if self._judged else {name: replace(why, neighbours=()) for name, why in found.items()}

    def _table(self, prediction: Prediction, order: NDArray[np.int64], measured: Mapping[str, Score]) -> pd.DataFrame:
        """The ranked checkpoints."""
        level = 0.0
        if not self._judged:
            level = float(logit(np.mean(self.metric.data.score)))
        elif not prediction.measured:  # the index does not know the probe: its accuracy tells how hard this is
            level = self.metric.level(float(logit(probe_score(self.embedding.descriptors).smoothed)), self.protocol)
        mean = level + prediction.mean[order]
        prior_mean = level + prediction.level + prediction.prior[order]
        sd = np.sqrt(prediction.variance(order))
        # Nothing below chance is a prediction.
        ends = (mean, prior_mean, mean - HALF_WIDTH_80 * sd, mean + HALF_WIDTH_80 * sd)
        score, prior, low, high = (np.maximum(np.exp(log_logistic(end)), self._chance) for end in ends)
        counts = self.metric.data.scores_by_checkpoint()
        table = self.checkpoints.iloc[order].reset_index(drop=True)
        table.index = table.index.rename("rank") + 1
        gain, spread = np.full((2, len(order)), np.nan)
        if (heirs := prediction.heirs) is not None:
            of_base = np.maximum(np.exp(log_logistic(mean - heirs.gain[order])), self._chance)
            expected = heirs.tuned[order] & ~table["hub_id"].isin(measured).to_numpy()
            gain = np.where(expected, 100.0 * (score - of_base), np.nan)
            spread = 100.0 * score * (1.0 - score) * np.sqrt(heirs.variance[order])
        table = table.assign(
            score=score,
            std=score * (1.0 - score) * sd,
            low=low,
            high=high,
            prior=prior,
            residual=score - prior,
            gain=gain,
            evidence=[
                self._evidence(hub_id, counts.get(hub_id, 0))
                if np.isnan(points)
                else self._heritage(hub_id, points, std)
                for hub_id, points, std in zip(table["hub_id"], gain, spread, strict=True)
            ],
            measured=[measured[hub_id].value if hub_id in measured else np.nan for hub_id in table["hub_id"]],
        )
        return table[list(COLUMNS)]

    def _evidence(self, hub_id: str, count: int) -> str:
        if self.eligible.experts and (expert := self.eligible.experts.by_id.get(hub_id)):
            task = self.eligible.experts.nearest(hub_id, self._similar)
            return f"measured here; fine-tuned on {task} from {expert.base}"
        if hub_id in self.eligible.not_in_index:
            return "not in the index; judged by its family"
        return f"{counted(count, 'score')} of it in the index" if count else "no scores; judged by checkpoints like it"

    def _heritage(self, hub_id: str, gain: float, std: float) -> str:
        """What is expected of an expert, in points over its base."""
        experts = self.eligible.experts
        assert experts is not None
        base, task = experts.by_id[hub_id].base, experts.nearest(hub_id, self._similar)
        if not self._judged:
            return f"fine-tuned on {task}; judged as its base {base}"
        near = "is near" if gain > 0.0 else "is not near enough"
        points = f"{gain:+.1f} ± {std:.1f} points".replace("-", "−")
        near += f" (similarity {self._similar[task]:.2f})"
        return f"fine-tuned on {task}, which {near}: expected {points} over its base {base}"

    def _summary(self, ranking: Ranking) -> str:
        """What to take; how sure, and what would make it surer; whether the task matters."""
        best, gain, within = ranking.best, ranking.task_gain, ranking.budgets[1:2]
        take = (
            f"Take {best.hub_id}: predicted {self.score_name} {PROTOCOL_WORDS[self.protocol]} {100 * best.score:.0f} % "
            f"(80 % interval {100 * best.low:.0f} to {100 * best.high:.0f})"
        )
        if within and within[0].candidate != best:
            take += (
                f", or with at most {SIZES[0] / 1e6:.0f} million parameters {within[0].candidate.hub_id}, "
                f"predicted {max(within[0].lower, 0.0):.1f} points lower"
            )
        sure = f"How sure: {best.evidence}"
        if kinds := ranking.as_good():
            sure += f"; {counted(kinds, 'other kind')} of checkpoint may be as good"
        if (promised := ranking.promised(_MEASURED)) > 0.05:
            sure += (
                f"; --refine {_MEASURED} measures {_MEASURED} of the short list on your images, which may gain "
                f"{promised:.1f} points"
            )
        if gain is None:
            matters = ""
        elif gain.static == best.hub_id:
            matters = " The task does not change the answer: it is also the best regardless of the task."
        else:
            little = "" if gain.points > gain.std else " little"
            matters = (
                f" The task matters{little}: {gain.static}, the best regardless of the task, is predicted {gain.said}."
            )
        return f"{take}. {sure}.{matters}"

    def _warnings(self, task_weight: float) -> Iterable[str]:
        """Say what makes the sample, or its place among the reference tasks, less reliable."""
        yield from weaknesses(self.embedding)
        if task_weight < FAR:
            yield "no reference task is near this dataset, so the ranking is only the prior: what does well in general"
        if self.embedding.task.get("label_kind") == "multi_label":
            yield (
                "images have several labels each, but the scores of the index are of tasks with one: the order comes "
                "from those, and the level of the mAP from the probe's own on this sample"
            )

    def _leakage(self, candidates: list[dict[str, Any]]) -> Iterable[str]:
        """Warn of candidates that have probably seen images of the dataset in training.

        The dataset is taken for a reference task whose embedding is next to its own, or which bears its name; a
        candidate has seen what its row says in ``trained_on``, and a reference task consists of what its row says in
        ``images_from``.
        """
        images_from = dict(zip(self.index.tasks["task"], self.index.tasks["images_from"], strict=True))
        own = plain(self.embedding.name)
        similarity, names = self.metric.task_similarity(self._task), self.metric.data.tasks.names
        alike = [names[t] for t in np.argsort(-similarity, kind="stable") if similarity[t] >= SAME_DATASET]
        alike += [name for name in images_from if plain(name) == own and name not in alike]
        origins = {own}.union(*(images_from.get(task, ()) for task in alike))
        seen = {slug for row in candidates for slug in origins.intersection(row["trained_on"])}
        if not seen:
            return
        same = [task for task in alike if not seen.isdisjoint(images_from.get(task, ()))]
        known = f"is, or is much like, the reference task {same[0]}" if same else "bears the name of a training set"
        count = sum(not seen.isdisjoint(row["trained_on"]) for row in candidates)
        yield (
            f"{count} of the {len(candidates)} candidates shown may have seen these images in training: the dataset "
            f"{known}, and they were trained on {', '.join(sorted(seen))}; accuracies on images seen in training are "
            "too high"
        )


def check_descriptors(embedding: TaskEmbedding) -> None:
    """Raise EmbeddingError if an embedding lacks a descriptor that a ranking needs."""
    if missing := [name for name in DESCRIPTORS if name not in embedding.descriptors]:
        raise EmbeddingError(
            f"the embedding of {embedding.name!r} lacks the descriptors {', '.join(missing)}; make it with embed_task"
        )


def probe_score(descriptors: Mapping[str, float]) -> Score:
    """Return what the probe itself reaches on an embedded task: its mAP where that is known, else its accuracy."""
    n = max(int(descriptors["n_samples"]), 1)
    if "probe_map" in descriptors:
        return Score(descriptors["probe_map"], descriptors["probe_map_std_error"], n)
    return Score.of_share(descriptors["linear_probe_accuracy"], n)


def _task_gain(prediction: Prediction, scores: Array, order: NDArray[np.int64]) -> TaskGain:
    """Compare the first of `order`, whose scores are given, with the one of the largest prior."""
    static = int(np.argmax(prediction.prior[order]))
    name = prediction.ids[order[static]]
    if static == 0:
        return TaskGain(name, 0.0, 0.0)
    middle = float((scores[0] + scores[static]) / 2.0)
    std = (
        middle * (1.0 - middle) * float(np.sqrt(prediction.variance_of_differences(int(order[0]), order[[static]])[0]))
    )
    return TaskGain(name, 100.0 * float(scores[0] - scores[static]), 100.0 * float(std))
