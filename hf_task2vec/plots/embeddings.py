"""Plots of single embeddings: their profile over the probe's depth, and how their noise falls with more images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.distance import check_comparable
from hf_task2vec.errors import EmbeddingError
from hf_task2vec.plots.style import ACCENT, COLOURS, FONT_SIZE, INK, MARKERS, MUTED, drawable, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.probe import Probe
    from hf_task2vec.task import Task

Array = NDArray[np.float64]

_TINY = 1e-30
_LEAST_SHOWN = 1e-10  # Fisher information below this is as good as none


def layer_profile(
    embedding: TaskEmbedding, references: Sequence[TaskEmbedding] = (), *, name: str | None = None
) -> Figure:
    """Draw the Fisher information of each layer, from the first to the last.

    Parameters
    ----------
    embedding
        The task: median and quartiles over the filters of each layer, on a logarithmic axis.
    references
        Tasks by the same probe, such as those of the index: a band holds the middle 80 % of their medians.
    name
        What to call the task (default: its dataset).

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ProbeMismatchError
        The references come from another probe.
    Task2VecError
        Matplotlib is not installed.
    """
    for reference in references:
        check_comparable(embedding, reference)
    figure = new_figure(8.6, 4.2)
    axes = figure.add_subplot()
    depth = np.arange(len(embedding.layer_names))
    low, median, high = _layer_quantiles(embedding)
    if references:
        medians = np.array([_layer_quantiles(reference)[1] for reference in references])
        band = np.quantile(medians, (0.1, 0.5, 0.9), axis=0)
        label = f"{len(references)} reference tasks: middle 80 % of medians"
        axes.fill_between(depth, band[0], band[2], color="#c9ced6", linewidth=0, label=label)
        axes.plot(depth, band[1], color=MUTED, linewidth=1.0, linestyle=(0, (4, 2)), label="their median")
    axes.vlines(depth, low, high, color=ACCENT, alpha=0.35, linewidth=3.0, label="quartiles over the filters")
    who = drawable(embedding.name if name is None else name)
    axes.plot(depth, median, color=ACCENT, linewidth=1.2, marker="o", markersize=3.2, label=f"{who}: median")
    axes.set_yscale("log")
    shown = low[low > _LEAST_SHOWN]
    axes.set_ylim(bottom=float(shown.min()) / 3 if len(shown) else None)
    tidy(axes)
    axes.grid(visible=False, axis="x")
    starts, groups = zip(*_groups(embedding.layer_names), strict=True)
    axes.set_xticks(starts, groups, rotation=90, fontsize=FONT_SIZE - 1)
    axes.set_xlim(-0.8, len(depth) - 0.2)
    axes.set_xlabel("layer of the probe, by depth", fontsize=FONT_SIZE)
    axes.set_ylabel("Fisher information of a filter", fontsize=FONT_SIZE)
    # The legend names what the figure is about first.
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(
        handles[::-1], labels[::-1], loc="outside upper left", ncols=2, frameon=False, fontsize=FONT_SIZE
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _layer_quantiles(embedding: TaskEmbedding) -> Array:
    """Quartiles over the filters of each of L layers, shape (3, L); a tiny value for 0, which has no logarithm."""
    layers = np.split(embedding.values.astype(np.float64), np.cumsum(embedding.layer_sizes)[:-1])
    return np.maximum([np.quantile(layer, (0.25, 0.5, 0.75)) for layer in layers], _TINY).T


def _groups(names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Where each run of layers of one block begins, and its name: the first two parts of the layers' names."""
    blocks = [".".join(name.split(".")[:2]) for name in names]
    start = 0
    for block, run in itertools.groupby(blocks):
        yield start, drawable(block, 16)
        start += len(list(run))


def embed_prefixes(
    task: Task, probe: Probe | None = None, counts: Sequence[int] | None = None, *, progress: bool = False
) -> list[TaskEmbedding]:
    """Embed the first n images of a sample for growing n, for :func:`noise_curve`.

    A sample is drawn class by class, so its first images are a balanced sample, too.

    Parameters
    ----------
    task
        The sample of N images.
    probe
        Probe network (default: :meth:`Probe.default`).
    counts
        Numbers of images, at most N (default: 16, 32, 64, ... and N, no fewer than two for each class, which costs
        about as much as two embeddings of the whole sample).
    progress
        Show a progress bar for each embedding.

    Returns
    -------
    list of TaskEmbedding
        One for each number, as :func:`~hf_task2vec.embed.embed_task` with that many images would give it; kept in the
        cache.

    Raises
    ------
    EmbeddingError
        A number is not between 2 and N.
    """
    from hf_task2vec.cache import cached_embedding, load_probe

    if counts is None:
        least = max(16, 2 * task.num_classes)
        counts = [*itertools.takewhile(lambda n: n < len(task), (least << k for k in itertools.count())), len(task)]
    if wrong := [count for count in counts if not 2 <= count <= len(task)]:
        raise EmbeddingError(f"counts={wrong} must lie between 2 and the {len(task)} images of the sample")
    network = load_probe(probe)
    return [cached_embedding(task.subset(range(count)), network, progress=progress) for count in counts]


def noise_curve(embeddings: Sequence[TaskEmbedding], *, tolerance: float = 0.05) -> Figure:
    """Draw the noise of embeddings against the number of images that they were averaged over.

    Parameters
    ----------
    embeddings
        Of one or more tasks, each with several numbers of images, such as :func:`embed_prefixes` makes; those of one
        dataset are joined by a line. The noise is that of their descriptors: half the log-correlation distance between
        two halves of the images.
    tolerance
        Noise to mark with a line: ``max_samples="auto"`` stops there.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    EmbeddingError
        No embedding says how noisy it is.
    Task2VecError
        Matplotlib is not installed.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    for embedding in embeddings:
        found = embedding.descriptors
        if "noise" in found and "n_fisher" in found:
            curves.setdefault(embedding.name, []).append((found["n_fisher"], found["noise"]))
    if not curves:
        raise EmbeddingError(f"none of the {len(embeddings)} embeddings has the descriptors noise and n_fisher")
    figure = new_figure(6.2, 3.9)
    axes = figure.add_subplot()
    for k, (name, points) in enumerate(curves.items()):
        x, y = zip(*sorted(points), strict=True)
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        axes.plot(x, y, color=colour, marker=marker, markersize=5, linewidth=1.4, label=drawable(name))
    counts = sorted({n for points in curves.values() for n, _ in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [f"{n:.0f}" for n in counts])
    axes.minorticks_off()
    axes.axhline(tolerance, color=INK, linewidth=1.0, linestyle=(0, (5, 3)))
    label = f"tolerance {tolerance:g}"
    axes.annotate(label, (1, tolerance), (-2, 3), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                  ha="right", va="bottom", fontsize=FONT_SIZE - 1, color=INK)  # fmt: skip
    axes.set_ylim(0.0, 1.12 * max(tolerance, *(noise for points in curves.values() for _, noise in points)))
    tidy(axes)
    axes.set_xlabel("images", fontsize=FONT_SIZE)
    axes.set_ylabel("noise: half the distance of two halves", fontsize=FONT_SIZE)
    if len(curves) > 1:
        legend = axes.legend(frameon=False, fontsize=FONT_SIZE)
        for text in legend.get_texts():
            text.set_parse_math(False)
    else:
        axes.set_title(drawable(next(iter(curves))), fontsize=FONT_SIZE + 1, loc="left", color=INK, parse_math=False)
    return figure
