"""The metrics: they predict how well a checkpoint will do on a task, as prior plus task-specific residual.

Scores are only comparable within a group (one source, protocol, metric, split and task). In the trained metric their
logits are modelled as ``level(group) + scale(group) · f(task, checkpoint, protocol, source) + noise(source)``, with a
Gaussian process ``f`` of the covariance

    sum over j, k of  v_jk · C_j(checkpoint, checkpoint') · T_k(group, group')  +  match

Kernels ``C_j`` say how alike checkpoints are: linear in single facts (accuracy, size, pretraining corpus, objective, …)
or in a few learned factors, smooth in all facts, the same family, the same checkpoint. ``T_k`` says with whom that is
shared: with all groups, with the fine-tuned or the frozen ones (fine-tuning leans on other facts), similar tasks (by
their embeddings), tasks described alike, the fine-tuned or the frozen ones of the same laboratory, or nobody. ``match``
lets domain encoders gain on tasks of their domain. What is shared with all, the protocol and the laboratory is the
prior; the rest is the residual, which shrinks when a task is far from every reference task, to what its descriptors
alone tell.

Means are exact (Rasmussen and Williams 2006, algorithm 2.1); the solved weights of the scores lie in the index
(``metric.safetensors``). Variances take the scores of different groups for independent given the prior (see
:class:`~hf_task2vec.metric.prediction.Posterior`). The variances and length-scales, learned by marginal likelihood, are
the "trained metric".
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import MetricError
from hf_task2vec.files import atomic_path, cache_dir, sha256_bytes, why
from hf_task2vec.metric.covariance import (
    EVERYWHERE,
    METRIC_FILE,
    SHARED_WITH,
    TASK_BLIND,
    Level,
    MetricParameters,
    at_home,
    checkpoint_diagonal,
    checkpoint_kernels,
    group_kernels,
    of_one_group,
    task_kernel,
)
from hf_task2vec.metric.kinds import KindTeller
from hf_task2vec.metric.observations import (
    PROTOCOLS,
    REFERENCE_SOURCE,
    CheckpointFeatures,
    Groups,
    Observations,
    check_protocol,
    checkpoint_features,
    is_tuned,
    observations,
)
from hf_task2vec.metric.prediction import Heirs, Posterior, Prediction, kernel_products
from hf_task2vec.metric.task_space import TaskFeatures, TaskSpace
from hf_task2vec.probes import Score

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.zoo import ZooIndex

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

WEIGHTS_FILE = "metric.safetensors"
FINE_TUNE, LINEAR_PROBE = PROTOCOLS
#: Variance of a group's level, in its scale: next to anything is possible.
LEVEL = 10.0
# Scores of a group beyond so many of its scales count as that many: one wrong row must not rule.
_CLIP = 3.5
# Weight, in scores, of a source's typical scale in that of a group, and of all sources' in that of a source.
_SCALE_SCORES, _SOURCE_SCORES = 3.0, 10.0
# Rows of the observations' covariance made at a time: their temporary arrays then stay in the processor's cache.
_CHUNK = 64
# Scores whose weights take more than a second to solve for.
_WORTH_KEEPING = 2500
# Files kept in the cache folder, some of 10 MB each: of one metric there are two.
_MOST_KEPT = 8


class Metric:
    """Predicts the standing of checkpoints on a task: what every metric shares.

    Attributes
    ----------
    name
        Its name in `METRICS`.
    space
        How embeddings become task features.
    data
        The scores that it predicts from.
    """

    name: ClassVar[str]
    space: TaskSpace
    data: Observations

    @classmethod
    def from_index(cls, index: ZooIndex) -> Metric:
        """Learn from the scores and embeddings of an index."""
        return cls(*evidence(index))  # type: ignore[call-arg]

    def predict(
        self,
        embedding: TaskEmbedding,
        checkpoints: pd.DataFrame,
        measured: Mapping[str, Score] | None = None,
        protocol: str = FINE_TUNE,
    ) -> Prediction:
        """Predict the standing of `checkpoints` (rows of ``checkpoints.csv``) on a task.

        Parameters
        ----------
        embedding
            The task.
        checkpoints
            Candidates, n rows.
        measured
            Accuracies of linear probes on this very task, by the id of a candidate: what turns standings into
            accuracies, and tells of the task what no embedding can.
        protocol
            ``"fine-tune"`` or ``"linear-probe"``: what the accuracies are predicted for.

        Raises
        ------
        ProbeMismatchError
            The embedding comes from another probe than the index's.
        MetricError
            There is no such protocol, or a measured checkpoint is not among the candidates.
        """
        task, candidates = self.space.of_embedding(embedding), checkpoint_features(checkpoints)
        return self.predict_features(task, candidates, measured, check_protocol(protocol))

    def predict_features(
        self,
        task: TaskFeatures,
        candidates: CheckpointFeatures,
        measured: Mapping[str, Score] | None = None,
        protocol: str = LINEAR_PROBE,
        heirs: Heirs | None = None,
    ) -> Prediction:
        """Predict from features of one task and of n checkpoints, or for heirs of these; see :meth:`predict`."""
        raise NotImplementedError

    def level(self, logit: float, protocol: str) -> float:
        """Return the logit under a protocol that a linear probe's on the same task stands for; by default the same."""
        return logit

    def task_similarity(self, task: TaskFeatures) -> Array:
        """Return the similarity of one task to the T known tasks, shape (T,), in [0, 1].

        By default the correlation of the centred Fisher profiles, where it is positive.
        """
        known = self.data.tasks
        similarity: Array = np.clip(known.profiles @ task.profiles[0], 0.0, 1.0) * known.embedded
        return similarity

    def residual_parts(self, task: TaskFeatures, candidates: CheckpointFeatures, protocol: str = LINEAR_PROBE) -> Array:
        """Split the residuals of n checkpoints by the T known tasks that they come from, shape (n, T), in logits."""
        return np.zeros((len(candidates.ids), len(self.data.tasks.names)))


@dataclass(frozen=True, eq=False)
class RankingMetric(Metric):
    """The trained metric: a Gaussian process conditioned on the scores of an index.

    Attributes
    ----------
    parameters
        Variances and length-scales.
    space
        How embeddings become task features.
    data
        The scores it is conditioned on.
    solved
        Weights of the scores, shape (N,), where they are known already.
    """

    name: ClassVar[str] = "trained"

    parameters: MetricParameters
    space: TaskSpace
    data: Observations
    solved: Array | None = None

    @classmethod
    def from_index(cls, index: ZooIndex, parameters: MetricParameters | None = None) -> RankingMetric:
        """Condition the metric on an index.

        Parameters
        ----------
        index
            The zoo index; it must hold embeddings and scores.
        parameters
            By default those shipped with the index (``metric.json``), else the built-in ones. With its own, an index
            also has the solved weights of its scores; for other scores they are solved when first needed.

        Raises
        ------
        MetricError
            The index holds no embeddings or no usable scores.
        """
        if parameters is not None:
            return cls(parameters, *evidence(index))
        stored = index.attachments.get(METRIC_FILE)
        parameters = MetricParameters() if stored is None else MetricParameters.from_json(stored)
        # An index may call its checkpoints by other names than it was trained by.
        loadings = {index.names.get(name, name): row for name, row in parameters.loadings.items()}
        parameters = replace(parameters, loadings=loadings)
        found = cls(parameters, *evidence(index))
        stored = index.attachments.get(WEIGHTS_FILE)
        solved = None if stored is None else found._read("weights", stored, WEIGHTS_FILE)
        return found if solved is None or solved.shape != found.data.y.shape else replace(found, solved=solved)

    def files(self, report: Mapping[str, object] | None = None) -> dict[str, bytes]:
        """Return the files that keep this metric in an index: its parameters, and the weights of its scores."""
        return {METRIC_FILE: self.parameters.to_json(report), WEIGHTS_FILE: self._written("weights", self.weights)}

    def _written(self, what: str, array: Array) -> bytes:
        from safetensors.numpy import save

        return save({what: array, "key": np.frombuffer(self._key.encode(), dtype=np.uint8)})

    def _read(self, what: str, stored: bytes, file: str) -> Array | None:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(stored)
            key, array = arrays["key"].tobytes().decode(), arrays[what]
        except (SafetensorError, ValueError, KeyError) as error:
            raise MetricError(f"{file} cannot be read: {error}") from error
        return array if key == self._key else None

    @cached_property
    def _key(self) -> str:
        """What the weights of the scores depend on."""
        solved_with = replace(self.parameters, spreads={}, scales={}, levels={}, loadings={})
        factors = self.parameters.factors(self.data.checkpoints.ids).tobytes() if self.parameters.loadings else b""
        return sha256_bytes(solved_with.to_json() + factors + self.data.digest.encode())

    @cached_property
    def scale(self) -> Array:
        """Shape (G,): by how many logits results of a group differ where the model's unit is 1.

        By moments: the spread of the group's logits, less that of drawing test images, over the one expected of these
        checkpoints (poor ones differ more than good ones); drawn towards the source's typical one, and that towards the
        typical one of all.
        """
        data = self.data
        at, g = data.group, len(data.first)
        kernels = checkpoint_kernels(self.parameters, data.checkpoints, data.checkpoints)
        between = [np.tensordot(self.parameters.weights @ of_one_group(tuned), kernels, 1) for tuned in (False, True)]
        noise = self.parameters.noise(data.sources)
        count = np.bincount(at, minlength=g).astype(np.float64)
        mean = np.bincount(at, data.y, minlength=g) / np.maximum(count, 1.0)
        found = np.bincount(at, (data.y - mean[at]) ** 2 - data.error * (1.0 - 1.0 / count[at]), minlength=g)
        found = np.maximum(found, 0.0)
        expected = np.zeros(g)
        for group, rows in enumerate(_rows_of(at, g)):
            if len(rows):
                block = between[int(data.groups.tuned[group])][np.ix_(data.checkpoint[rows], data.checkpoint[rows])]
                own = noise[data.source[rows[0]]] * (len(rows) - 1)
                expected[group] = np.trace(block) - block.sum() / len(rows) + own
        source = data.source[data.first]
        total, spread = (np.bincount(source, x, len(data.sources)) for x in (expected, found))
        overall = max(spread.sum() / max(total.sum(), 1e-9), 1e-4)
        typical = ((spread + _SOURCE_SCORES * overall) / (total + _SOURCE_SCORES))[source]
        return np.asarray(np.sqrt((found + _SCALE_SCORES * typical) / (expected + _SCALE_SCORES)))

    @cached_property
    def y(self) -> Array:
        """Shape (N,): the logits about their group's mean, in its scale."""
        at, g = self.data.group, len(self.data.first)
        mean = np.bincount(at, self.data.y, minlength=g) / np.maximum(np.bincount(at, minlength=g), 1)
        return np.clip((self.data.y - mean[at]) / self.scale[at], -_CLIP, _CLIP)

    def covariance(self) -> Array:
        """Covariance of the N scores in their groups' scales, shape (N, N)."""
        data, p = self.data, self.parameters
        kernels = checkpoint_kernels(p, data.checkpoints, data.checkpoints)
        task = data.task[data.first]
        same = data.tasks.take(task)
        similar = task_kernel(p, same, same, task[:, None] == task)
        between = group_kernels(similar, data.groups, data.groups, np.eye(len(task), dtype=bool))
        shared = np.tensordot(p.weights, np.stack(between), 1)
        at, group, match = data.checkpoint, data.group, self.match_of_scores
        found = np.empty((len(at), len(at)))
        for start in range(0, len(at), _CHUNK):
            rows = slice(start, start + _CHUNK)
            block = p.match * np.outer(match[rows], match) + LEVEL * (group[rows, None] == group)
            for kernel, of in zip(kernels, shared, strict=True):
                block += kernel[at[rows]][:, at] * of[group[rows]][:, group]
            found[rows] = block
        found[np.diag_indices(len(at))] += self.noise_of_scores
        return found

    @cached_property
    def weights(self) -> Array:
        """Shape (N,): the inverse covariance of the scores, times them."""
        return self._kept("weights", self._solve, self.data.y.shape) if self.solved is None else self.solved

    def _kept(self, what: str, compute: Callable[[], Array], shape: tuple[int, ...]) -> Array:
        """What `compute` gives for these scores and parameters, from the cache folder if it was computed before."""
        if len(self.data.y) < _WORTH_KEEPING:
            return compute()
        file = cache_dir() / "metric" / f"{self._key}.{what}.safetensors"
        if os.path.isfile(file):  # noqa: PTH113 (False where it may not be read)
            try:
                found = self._read(what, file.read_bytes(), str(file))
            except (OSError, MetricError) as error:
                logger.info("what is kept of the metric is not usable: %s", error)
            else:
                if found is not None and found.shape == shape:
                    return found
        found = compute()
        try:
            with atomic_path(file) as temporary:
                temporary.write_bytes(self._written(what, found))
            for old in sorted(file.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-_MOST_KEPT]:
                old.unlink()
        except OSError as error:
            logger.info("nothing is kept of the metric: %s", why(error))
        return found

    def _solve(self) -> Array:
        from scipy.linalg import cho_factor, cho_solve

        logger.info("solving the metric for %d scores", len(self.y))
        # Transposed it is the same matrix, in the order that LAPACK factors in place.
        return np.asarray(cho_solve(cho_factor(self.covariance().T, lower=True, overwrite_a=True), self.y))

    @cached_property
    def noise_of_scores(self) -> Array:
        """Shape (N,): variance of each score in its group's scale that nothing else explains."""
        data = self.data
        return self.parameters.noise(data.sources)[data.source] + data.error / self.scale[data.group] ** 2

    @cached_property
    def match_of_scores(self) -> Array:
        """Shape (N,): how far the checkpoint is made for tasks of this kind."""
        data = self.data
        return at_home(data.checkpoints.home[data.checkpoint], data.groups.kinds[data.group])

    @cached_property
    def _weights_by_group(self) -> Array:
        """The weights as a table of groups and checkpoints, shape (G, C)."""
        found = np.zeros((len(self.data.first), len(self.data.checkpoints.ids)))
        np.add.at(found, (self.data.group, self.data.checkpoint), self.weights)
        return found

    def _query(self, task: TaskFeatures, protocol: str) -> Groups:
        """A group of scores of one task."""
        source = -1  # of none that is known
        if protocol == LINEAR_PROBE and REFERENCE_SOURCE in self.data.sources:
            source = 2 * self.data.laboratories[self.data.sources.index(REFERENCE_SOURCE)]
        return Groups(
            np.array([protocol == FINE_TUNE]),
            np.array([source]),
            self.kinds_of(task)[None],
            task.descriptors * task.embedded[:, None],
        )

    def _shared(self, query: Groups, similarity: Array) -> Array:
        """What a group shares with the known groups, shape (shared, G), by the similarity of its task to theirs."""
        data = self.data
        shared = group_kernels(similarity[None, data.task[data.first]], query, data.groups)
        return np.concatenate(shared).astype(np.float64)

    @cached_property
    def _told(self) -> KindTeller | None:
        return KindTeller.of(self.data.tasks)

    def kinds_of(self, task: TaskFeatures) -> Array:
        """Probabilities of the kinds of one task, shape (kinds,): known, or told from the embedded reference tasks."""
        if task.kinds.any() or not task.embedded[0] or self._told is None:
            return np.asarray(task.kinds[0])
        return self._told(task)

    def predict_features(
        self,
        task: TaskFeatures,
        candidates: CheckpointFeatures,
        measured: Mapping[str, Score] | None = None,
        protocol: str = LINEAR_PROBE,
        heirs: Heirs | None = None,
    ) -> Prediction:
        """Predict from features of one task and of n checkpoints, or for heirs of these; see :meth:`predict`."""
        kept = dict[bytes, Array]()
        prediction = self._predict(task, candidates, protocol, kept).inherited_by(heirs)
        if not measured:
            return prediction
        if protocol == LINEAR_PROBE:
            return prediction.given(measured)
        probed = self._predict(task, candidates, LINEAR_PROBE, kept).inherited_by(heirs).given(measured)
        return prediction.at_level_of(
            probed, self._level_of(protocol), self._posterior(task, candidates, protocol, kept, LINEAR_PROBE)
        )

    def _level_of(self, protocol: str) -> Level:
        return self.parameters.levels.get(protocol, Level())

    def level(self, logit: float, protocol: str) -> float:
        """Return the logit under a protocol that a linear probe's on the same task stands for."""
        line = self._level_of(protocol)
        return logit if protocol == LINEAR_PROBE else line.intercept + line.slope * logit

    def _predict(
        self, task: TaskFeatures, candidates: CheckpointFeatures, protocol: str, kept: dict[bytes, Array]
    ) -> Prediction:
        p, data = self.parameters, self.data
        weights, similarity = p.weights, self.task_similarity(task)
        query = self._query(task, protocol)
        shared = self._shared(query, similarity)
        blind = np.array([name in TASK_BLIND for name in SHARED_WITH])
        vectors = np.stack(
            [(weights[:, part] @ shared[part]) @ self._weights_by_group for part in (blind, ~blind)], axis=2
        )
        prior, residual = kernel_products(p, candidates, data.checkpoints, vectors).T
        home = at_home(candidates.home, query.kinds)
        unit = p.scales.get(protocol, 1.0)
        near = float(similarity[data.tasks.embedded].max(initial=0.0))
        posterior = self._posterior(task, candidates, protocol, kept)
        tuned = tuple(name for name in data.sources if is_tuned(name))
        noise = float(np.median(p.noise((REFERENCE_SOURCE,) if protocol == LINEAR_PROBE else tuned or ("",))))
        return Prediction(
            candidates.ids,
            prior=unit * prior,
            residual=unit * (residual + p.match * home * (self.match_of_scores @ self.weights)),
            task_weight=near,
            noise=p.spreads.get(protocol, 1.0) * unit**2 * noise,
            posterior=posterior,
            unit=unit,
        )

    def _posterior(
        self,
        task: TaskFeatures,
        candidates: CheckpointFeatures,
        protocol: str,
        kept: dict[bytes, Array],
        other: str | None = None,
    ) -> Posterior:
        """What is known of the results under a protocol; with `other`, of how they go with those under that."""
        p, data = self.parameters, self.data
        query, beside = self._query(task, protocol), self._query(task, other or protocol)
        # What results on the same task have in common.
        same = np.array([[other is None]])
        itself = np.concatenate(group_kernels(np.ones((1, 1)), query, beside, same))[:, 0].astype(np.float64)
        near = float(self.task_similarity(task)[data.tasks.embedded].max(initial=0.0))
        everywhere = len(EVERYWHERE)
        return Posterior(
            p,
            scored=data.checkpoints,
            candidates=candidates,
            blind=p.weights[:, :everywhere] @ itself[:everywhere],
            rest=p.weights[:, everywhere:] @ itself[everywhere:] * (1.0 - near**2 / 2.0),
            shared=self._shared_with(protocol),
            known=self._known,
            match=np.sqrt(p.match) * at_home(candidates.home, query.kinds),
            other=None if other is None else self._shared_with(other),
            spread=float(np.sqrt(p.spreads.get(protocol, 1.0) * p.spreads.get(other or protocol, 1.0))),
            kept=kept,
        )

    def _shared_with(self, protocol: str) -> Array:
        """Variances that results of a protocol share with frozen and with tuned ones, shape (kernels, 2)."""
        everywhere, tuned, frozen = self.parameters.weights[:, : len(EVERYWHERE)].T
        of_tuned = protocol == FINE_TUNE
        return np.column_stack([everywhere + frozen * (not of_tuned), everywhere + tuned * of_tuned])

    @cached_property
    def _known(self) -> Array:
        """What the scores know of the standings of the C checkpoints, frozen and tuned, shape (2C, 2C).

        Each score's peculiarities are taken for noise of its own; several of a checkpoint on one task, for one.
        """
        both = 2 * len(self.data.checkpoints.ids)
        return self._kept("known", self._find_known, (both, both))

    def _find_known(self) -> Array:
        data, p = self.data, self.parameters
        c, g = len(data.checkpoints.ids), len(data.first)
        kernels = checkpoint_kernels(p, data.checkpoints, data.checkpoints)
        prior = np.block(
            [
                [np.tensordot(weights, kernels, 1) for weights in self._shared_with(protocol).T]
                for protocol in (LINEAR_PROBE, FINE_TUNE)
            ]
        )
        diagonal = checkpoint_diagonal(p, data.checkpoints)
        own = np.stack(
            [p.weights @ of_one_group(tuned, SHARED_WITH[len(EVERYWHERE) :]) @ diagonal for tuned in (False, True)]
        )
        own = own[data.groups.tuned[data.group].astype(int), data.checkpoint]
        pair = data.task * c + data.checkpoint
        repeated = np.bincount(pair)[pair]
        precision = 1.0 / ((own + self.noise_of_scores) * repeated)
        which = data.checkpoint + c * data.groups.tuned[data.group]
        by_group = np.zeros((g, 2 * c))
        np.add.at(by_group, (data.group, which), precision)
        total = np.maximum(by_group.sum(axis=1), 1e-12)
        told = np.diag(by_group.sum(axis=0)) - by_group.T @ (by_group / total[:, None])
        scored = np.ix_(*2 * [np.unique(which)])  # nothing is told of the others
        found = np.zeros((2 * c, 2 * c))
        found[scored] = np.linalg.solve(np.eye(len(told[scored])) + told[scored] @ prior[scored], told[scored])
        return (found + found.T) / 2.0

    def task_similarity(self, task: TaskFeatures) -> Array:
        """Return the similarity of one task to the T known tasks, shape (T,), in [0, 1]."""
        same = np.array([[name == task.names[0] for name in self.data.tasks.names]])
        similarity: Array = task_kernel(self.parameters, task, self.data.tasks, same)[0]
        return similarity

    def residual_parts(self, task: TaskFeatures, candidates: CheckpointFeatures, protocol: str = LINEAR_PROBE) -> Array:
        """Split the residuals of n checkpoints by the T known tasks that they come from, shape (n, T), in logits."""
        data, p = self.data, self.parameters
        query = self._query(task, protocol)
        shared = self._shared(query, self.task_similarity(task))
        blind = np.array([name in TASK_BLIND for name in SHARED_WITH])
        kernels = checkpoint_kernels(p, candidates, data.checkpoints)
        of_groups = p.weights[:, ~blind] @ shared[~blind]
        parts = sum(kernel @ self._weights_by_group.T * of for kernel, of in zip(kernels, of_groups, strict=True))
        match = np.bincount(data.group, self.match_of_scores * self.weights, minlength=len(data.first))
        parts = parts + p.match * np.outer(at_home(candidates.home, query.kinds), match)
        found = np.zeros((len(data.tasks.names), len(candidates.ids)))
        np.add.at(found, data.task[data.first], parts.T)
        return p.scales.get(protocol, 1.0) * found.T


def _rows_of(group: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    order = np.argsort(group, kind="stable")
    return np.split(order, np.searchsorted(group[order], np.arange(1, count)))


def evidence(index: ZooIndex) -> tuple[TaskSpace, Observations]:
    """Return what a metric learns from: the space of an index's embeddings, and its scores.

    Raises
    ------
    MetricError
        The index holds no embeddings or no usable scores, or its embeddings lack a descriptor.
    """
    if index.embedded is None:
        raise MetricError("the index holds no task embeddings; run `hf-task2vec index build` or use the shipped index")
    space = TaskSpace.fit(index.embeddings)
    data = observations(index, space)
    if not len(data.y):
        raise MetricError("the index holds no two comparable scores; add measurements with `hf-task2vec index build`")
    return space, data
