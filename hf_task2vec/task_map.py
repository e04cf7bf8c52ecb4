"""A set of tasks as a whole: which are alike, which are all but the same, how diverse the set is, and a map of it.

The diversity coefficient is the mean distance between the Task2Vec embeddings of a set: Miranda et al. 2022, "The
Curse of Low Task Diversity" (arXiv 2208.01545), and Lee et al. 2023, "Beyond Scale: the Diversity Coefficient as a Data
Quality Metric" (arXiv 2306.13840). Both take the cosine distance and probes of their own, so compare coefficients only
where the probe and the distance are the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.distance import DEFAULT_DISTANCE, pairwise
from hf_task2vec.errors import EmbeddingError
from hf_task2vec.plots.layout import euclidean, lay_out

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding

Array = NDArray[np.float64]

#: Two tasks no farther apart than this many times the mean noise of their embeddings count as near duplicates: about
#: 95 % of pairs of samples of one task are nearer (``benchmarks/near_duplicates.py``).
DUPLICATE_RATIO = 2.2


@dataclass(frozen=True)
class TaskPair:
    """Two tasks of a map.

    Attributes
    ----------
    first, second
        Their names.
    distance
        By the map's distance.
    noise_ratio
        Their log-correlation distance over the mean noise of their embeddings; mostly 1.4 to 2.1 for two samples of
        one task. None if an embedding does not say how noisy it is.
    near_duplicate
        Whether the two are no farther apart than two samples of one task may be; False where that cannot be said.
    """

    first: str
    second: str
    distance: float
    noise_ratio: float | None
    near_duplicate: bool


@dataclass(frozen=True)
class Diversity:
    """The diversity coefficient of a set of tasks.

    Attributes
    ----------
    mean
        Mean distance over all pairs.
    std_error
        Its standard error if the tasks are a random draw from a larger population, by leaving out one task at a time:
        pairs that share a task are not independent. None for two tasks.
    n_tasks, n_pairs
        How many there are.
    """

    mean: float
    std_error: float | None
    n_tasks: int
    n_pairs: int


@dataclass(frozen=True, eq=False)
class TaskMap:
    """A set of n tasks: made by :func:`map_tasks`, drawn by the functions of :mod:`hf_task2vec.plots`.

    Attributes
    ----------
    names, domains
        n names, all different, and what kind of task each is, None where unknown.
    probe
        Name of the network that embedded them all.
    descriptors
        Of each embedding (see :data:`~hf_task2vec.embedding.DESCRIPTORS`).
    kind
        Name of the distance.
    distances
        Shape (n, n), symmetric with a diagonal of zeros; the mean of both directions where `kind` has two.
    noise_ratios
        Shape (n, n): see :class:`TaskPair`; NaN where unknown, and on the diagonal.
    positions
        Shape (n, 2): the places on the map, about their mean, in no unit.
    layout
        ``"tsne"`` or ``"mds"``.
    duplicate_ratio
        Largest noise ratio of near duplicates.
    """

    names: tuple[str, ...]
    domains: tuple[str | None, ...]
    probe: str
    descriptors: tuple[dict[str, float], ...]
    kind: str
    distances: Array
    noise_ratios: Array
    positions: Array
    layout: str
    duplicate_ratio: float = DUPLICATE_RATIO

    def __len__(self) -> int:
        return len(self.names)

    @property
    def diversity(self) -> Diversity:
        """The mean distance between two of the tasks."""
        return diversity(self.distances)

    @property
    def pairs(self) -> list[TaskPair]:
        """All n (n − 1) / 2 pairs, nearest first."""
        first, second = np.triu_indices(len(self), 1)
        order = np.argsort(self.distances[first, second], kind="stable")
        return [self._pair(int(first[k]), int(second[k])) for k in order]

    @property
    def near_duplicates(self) -> list[TaskPair]:
        """The pairs that could be two samples of one task, nearest first."""
        return [pair for pair in self.pairs if pair.near_duplicate]

    def nearest(self, position: int, count: int = 3) -> list[TaskPair]:
        """Return the `count` tasks nearest to the one at `position`, which is first in each pair."""
        order = np.argsort(self.distances[position], kind="stable")
        return [self._pair(position, int(j)) for j in order if j != position][:count]

    @property
    def stress(self) -> float:
        """Kruskal's stress-1 of the map, in [0, 1]: 0 if distances on it are proportional to those of the tasks."""
        upper = np.triu_indices(len(self), 1)
        wanted, found = self.distances[upper], euclidean(self.positions)[upper]
        if not wanted.any():
            return 0.0
        square = float(found @ found)
        scale = float(found @ wanted) / square if square else 0.0
        return math.sqrt(float(np.sum((scale * found - wanted) ** 2)) / float(wanted @ wanted))

    @property
    def neighbours_kept(self) -> float:
        """Share of tasks whose nearest task is among the three nearest on the map."""
        far = np.diag(np.full(len(self), np.inf))
        nearest = (self.distances + far).argmin(axis=1)
        drawn = np.argsort(euclidean(self.positions) + far, axis=1, kind="stable")[:, :3]
        return float(np.mean((drawn == nearest[:, None]).any(axis=1)))

    def linkage(self) -> Array:
        """Return the dendrogram of average linkage, shape (n − 1, 4), in SciPy's form; near leaves lie side by side."""
        from scipy.cluster.hierarchy import linkage
        from scipy.spatial.distance import squareform

        # The asymmetric distance can be negative; a dendrogram's heights cannot.
        raised = squareform(self.distances, checks=False) - min(0.0, float(self.distances.min()))
        return np.asarray(linkage(raised, method="average", optimal_ordering=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the map as plain Python objects, ready for JSON; the distances in the order of the tasks."""
        tasks = [
            {"name": name, "domain": domain, "x": float(x), "y": float(y), "descriptors": dict(found)}
            for name, domain, (x, y), found in zip(
                self.names, self.domains, self.positions, self.descriptors, strict=True
            )
        ]
        return {
            "kind": self.kind,
            "probe": self.probe,
            "diversity": asdict(self.diversity),
            "duplicate_ratio": self.duplicate_ratio,
            "near_duplicates": [asdict(pair) for pair in self.near_duplicates],
            "layout": {"method": self.layout, "stress": self.stress, "neighbours_kept": self.neighbours_kept},
            "tasks": tasks,
            "distances": self.distances.tolist(),
        }

    def _pair(self, i: int, j: int) -> TaskPair:
        ratio = float(self.noise_ratios[i, j])
        return TaskPair(
            first=self.names[i],
            second=self.names[j],
            distance=float(self.distances[i, j]),
            noise_ratio=None if math.isnan(ratio) else ratio,
            near_duplicate=ratio <= self.duplicate_ratio,  # False for NaN
        )


def map_tasks(
    embeddings: Sequence[TaskEmbedding],
    names: Sequence[str] | None = None,
    domains: Sequence[str | None] | None = None,
    *,
    kind: str = DEFAULT_DISTANCE,
    duplicate_ratio: float = DUPLICATE_RATIO,
    seed: int = 0,
) -> TaskMap:
    """Compare tasks and lay them out on a map.

    From twelve tasks on, the map is a t-SNE of the distances: it keeps neighbours together, while how far apart two
    groups lie means little. With fewer it is a metric MDS, which keeps all distances as well as a plane can.
    :attr:`TaskMap.stress` and :attr:`TaskMap.neighbours_kept` say how well it did.

    Parameters
    ----------
    embeddings
        Two or more, by one probe.
    names
        Names to show (default: of the embedded datasets); all different.
    domains
        Kind of each task, which colours the plots; None where it is not known.
    kind
        A distance in :data:`~hf_task2vec.distance.DISTANCES`. Near duplicates are found by the default one always, for
        only that has a noise to be compared with.
    duplicate_ratio
        Pairs up to this noise ratio (see :class:`TaskPair`) count as near duplicates.
    seed
        Seed of the layout.

    Returns
    -------
    TaskMap

    Raises
    ------
    EmbeddingError
        Fewer than two embeddings, names or domains of another number, a name twice, or an unknown distance.
    ProbeMismatchError
        The embeddings come from different probes.
    """
    if len(embeddings) < 2:
        raise EmbeddingError(f"a map needs two tasks or more, found {len(embeddings)}")
    names = [embedding.name for embedding in embeddings] if names is None else list(names)
    domains = [None] * len(embeddings) if domains is None else list(domains)
    for what, given in (("names", names), ("domains", domains)):
        if len(given) != len(embeddings):
            raise EmbeddingError(f"{len(given)} {what} for {len(embeddings)} embeddings; give one for each")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise EmbeddingError(f"names must differ, found more than once: {', '.join(repeated)}; pass names=")
    distances = _symmetrised(pairwise(embeddings, kind))
    default = distances if kind == DEFAULT_DISTANCE else _symmetrised(pairwise(embeddings))
    positions, layout = lay_out(np.maximum(distances, 0.0), seed)
    return TaskMap(
        names=tuple(names),
        domains=tuple(domains),
        probe=str(embeddings[0].probe["name"]),
        descriptors=tuple(embedding.descriptors for embedding in embeddings),
        kind=kind,
        distances=distances,
        noise_ratios=_noise_ratios(embeddings, default),
        positions=positions,
        layout=layout,
        duplicate_ratio=duplicate_ratio,
    )


def diversity(distances: Array) -> Diversity:
    """Return the mean of the pairwise `distances`, shape (n, n) with n ≥ 2, and its jackknife standard error."""
    n = len(distances)
    sums = np.triu(distances, 1) + np.triu(distances, 1).T
    total, n_pairs = float(sums.sum()) / 2, n * (n - 1) // 2
    error = None
    if n > 2:
        without = (total - sums.sum(axis=1)) / ((n - 1) * (n - 2) / 2)
        error = math.sqrt((n - 1) / n * float(np.sum((without - without.mean()) ** 2)))
    return Diversity(total / n_pairs, error, n, n_pairs)


def _symmetrised(matrix: Array) -> Array:
    middle = (matrix + matrix.T) / 2
    np.fill_diagonal(middle, 0.0)
    return middle


def _noise_ratios(embeddings: Sequence[TaskEmbedding], distances: Array) -> Array:
    noise = np.array([embedding.descriptors.get("noise", math.nan) for embedding in embeddings])
    noise[noise <= 0] = math.nan  # without any noise nothing can be said in units of it
    ratios = distances / ((noise[:, None] + noise[None, :]) / 2)
    np.fill_diagonal(ratios, math.nan)
    return ratios
