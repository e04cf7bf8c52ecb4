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

from hf_task2vec.embedding import DEFAULT_DISTANCE, pairwise
from hf_task2vec.errors import EmbeddingError
from hf_task2vec.report.html import render_page

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding

Array = NDArray[np.float64]

#: Two tasks no farther apart than this many times the mean noise of their embeddings count as near duplicates: about
#: 95 % of pairs of samples of one task are nearer (``benchmarks/properties/retrieval.py``).
DUPLICATE_RATIO = 2.2
#: From this many tasks on a map keeps neighbours (t-SNE), below it keeps distances (MDS).
LEAST_FOR_TSNE = 12


@dataclass(frozen=True)
class TaskPair:
    """Two tasks of a map."""

    first: str
    second: str
    """Their names."""
    distance: float
    """By the map's distance."""
    noise_ratio: float | None
    """Their log-correlation distance over the mean noise of their embeddings; mostly 1.4 to 2.1 for two samples of one
    task. None if an embedding does not say how noisy it is."""
    near_duplicate: bool
    """Whether the two are no farther apart than two samples of one task may be; False where that cannot be said."""


@dataclass(frozen=True)
class Diversity:
    """The diversity coefficient of a set of tasks."""

    mean: float
    """Mean distance over all pairs."""
    std_error: float | None
    """Its standard error if the tasks are a random draw from a larger population, by leaving out one task at a time:
    pairs that share a task are not independent. None for two tasks."""
    n_tasks: int
    n_pairs: int
    """How many there are."""


@dataclass(frozen=True, eq=False)
class TaskMap:
    """A set of n tasks: made by :func:`map_tasks`, drawn by :func:`map_page`.

    Attributes
    ----------
    names, domains
        n names, all different, and what kind of task each is, None where unknown.
    probe
        Name of the network that embedded them all.
    descriptors
        Of each embedding (see :data:`~hf_task2vec.embedding.task_embedding.DESCRIPTORS`).
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

    def to_dict(self) -> dict[str, Any]:
        """Return the map as plain Python objects, ready for JSON; the distances in the order of the tasks."""
        places = zip(self.names, self.domains, self.positions.tolist(), self.descriptors, strict=True)
        return {
            "kind": self.kind,
            "probe": self.probe,
            "diversity": asdict(self.diversity),
            "duplicate_ratio": DUPLICATE_RATIO,
            "near_duplicates": [asdict(pair) for pair in self.near_duplicates],
            "layout": self.layout,
            "tasks": [
                {"name": name, "domain": domain, "x": x, "y": y, "descriptors": found}
                for name, domain, (x, y), found in places
            ],
            "distances": self.distances.tolist(),
        }

    def _pair(self, i: int, j: int) -> TaskPair:
        ratio = float(self.noise_ratios[i, j])
        return TaskPair(
            first=self.names[i],
            second=self.names[j],
            distance=float(self.distances[i, j]),
            noise_ratio=None if math.isnan(ratio) else ratio,
            near_duplicate=ratio <= DUPLICATE_RATIO,  # False for NaN
        )


def map_tasks(
    embeddings: Sequence[TaskEmbedding],
    names: Sequence[str] | None = None,
    domains: Sequence[str | None] | None = None,
    *,
    kind: str = DEFAULT_DISTANCE,
) -> TaskMap:
    """Compare tasks and lay them out on a map.

    From twelve tasks on, the map is a t-SNE of the distances: it keeps neighbours together, while how far apart two
    groups lie means little. With fewer it is classical scaling (MDS), which keeps all distances as well as it can.

    Parameters
    ----------
    embeddings
        Two or more, by one probe.
    names
        Names to show (default: of the embedded datasets); all different.
    domains
        Kind of each task, which colours the map; None where it is not known.
    kind
        A distance in :data:`~hf_task2vec.DISTANCES`. Near duplicates are found by the default one always, for only
        that has a noise to be compared with.

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
    positions, layout = _lay_out(np.maximum(distances, 0.0))
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


def _lay_out(distances: Array) -> tuple[Array, str]:
    """Place n tasks in the plane, shape (n, 2); the widest direction is the horizontal."""
    n = len(distances)
    centre = np.eye(n) - 1.0 / n
    values, vectors = np.linalg.eigh(-centre @ distances**2 @ centre / 2)
    # Classical scaling (Torgerson 1952): scikit-learn has it from 1.8 on, which Python 3.10 does not get.
    start = vectors[:, :-3:-1] * np.sqrt(np.maximum(values[:-3:-1], 0.0))
    if n < LEAST_FOR_TSNE or not start[:, 0].any():
        return np.asarray(start), "mds"
    from sklearn.manifold import TSNE

    start = start / start[:, 0].std() * 1e-4  # as small as scikit-learn makes a start by principal components
    model = TSNE(metric="precomputed", init=start, perplexity=min(8.0, (n - 1) / 3), method="exact", random_state=0)
    found = model.fit_transform(distances.copy())  # a copy, for it squares the matrix that it gets
    found = found - found.mean(axis=0)
    return np.asarray(found @ np.linalg.svd(found, full_matrices=False)[2].T, dtype=np.float64), "tsne"


# Lengths on the picture are in the units of its view box, about pixels on a wide screen.
_WIDTH, _MARGIN, _GAP, _FONT = 1000.0, 46.0, 9.0, 11.5
_LETTER = 0.58  # mean width of a letter over the size of the font, of the wider sans-serif fonts
_COLOURS, _SHAPES = 6, 4  # of the template
_SHOWN_PAIRS, _LONGEST_LABEL = 20, 32


def map_page(tasks: TaskMap, *, title: str | None = None) -> str:
    """Return a page with the map, the nearest pairs and all tasks.

    Pointing at a task shows its facts and the three nearest tasks. The page follows the light or dark setting of the
    browser.

    Parameters
    ----------
    tasks
        From :func:`map_tasks`.
    title
        Heading (default: how many tasks there are).

    Returns
    -------
    str
        An HTML document, to be written as UTF-8. It names the tasks and domains, and holds no image.
    """
    counts = Counter(domain or "no domain given" for domain in tasks.domains)
    marks = {name: (k % _COLOURS, k // _COLOURS % _SHAPES) for k, (name, _) in enumerate(counts.most_common())}
    points, height = _fit(tasks.positions)
    labels = [name if len(name) <= _LONGEST_LABEL else name[: _LONGEST_LABEL - 1] + "…" for name in tasks.names]
    rows = [
        {
            "name": name,
            "domain": domain or "no domain given",
            "n_classes": found.get("n_classes"),
            "n_samples": found.get("n_samples"),
            "nearest": tasks.nearest(i),
            "point": points[i],
            "label": label,
            "place": place,
        }
        for i, (name, domain, found, label, place) in enumerate(
            zip(tasks.names, tasks.domains, tasks.descriptors, labels, _place_labels(points, labels), strict=True)
        )
    ]
    return render_page(
        "map.html.j2",
        styles=("page.css", "map.css"),
        title=f"Map of {len(tasks)} tasks" if title is None else title,
        tasks=tasks,
        rows=rows,
        counts=counts if len(counts) > 1 else {},
        marks=marks,
        width=_WIDTH,
        height=height,
        pairs=tasks.pairs[:_SHOWN_PAIRS],
        judged=bool(np.isfinite(tasks.noise_ratios).any()),
        duplicate_ratio=DUPLICATE_RATIO,
    )


def _fit(positions: Array) -> tuple[list[tuple[float, float]], float]:
    """Return the points of a picture, with y downwards, and its height."""
    low, (wide, high) = positions.min(axis=0), np.ptp(positions, axis=0)
    scale = (_WIDTH - 4 * _MARGIN) / max(float(wide), 1e-12)  # some room for labels on both sides
    height = max(high * scale + 2 * _MARGIN, 260.0)
    x = 2 * _MARGIN + (positions[:, 0] - low[0]) * scale
    y = height / 2 - (positions[:, 1] - low[1] - high / 2) * scale
    return list(zip(x.tolist(), y.tolist(), strict=True)), float(height)


def _place_labels(points: Sequence[tuple[float, float]], labels: Sequence[str]) -> list[dict[str, Any] | None]:
    """Put each label right, left, above or below its point, wherever it covers nothing, else nowhere."""
    taken = [(x - _GAP, y - _GAP, x + _GAP, y + _GAP) for x, y in points]
    found: list[dict[str, Any] | None] = []
    for (x, y), label in zip(points, labels, strict=True):
        wide = _LETTER * _FONT * len(label)
        for anchor, at, middle, left in (
            ("start", x + _GAP, y, x + _GAP),
            ("end", x - _GAP, y, x - _GAP - wide),
            ("middle", x, y - 1.9 * _GAP, x - wide / 2),
            ("middle", x, y + 1.9 * _GAP, x - wide / 2),
        ):
            box = (left, middle - 0.6 * _FONT, left + wide, middle + 0.6 * _FONT)
            apart = (box[2] <= a or c <= box[0] or box[3] <= b or d <= box[1] for a, b, c, d in taken)
            if left >= 0 and box[2] <= _WIDTH and all(apart):
                taken.append(box)
                found.append({"anchor": anchor, "x": at, "y": middle})
                break
        else:
            found.append(None)
    return found
