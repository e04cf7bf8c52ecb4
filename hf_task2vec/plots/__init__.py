"""Plots, each a `matplotlib.figure.Figure` to be shown or saved; nothing global is touched.

They need Matplotlib, which ``pip install 'hf-task2vec[report]'`` adds; without it they raise a `Task2VecError`.
:func:`map_page` makes a web page and needs nothing.

>>> from hf_task2vec import ZooIndex, plots  # doctest: +SKIP
>>> tasks = map_tasks([mine, *references])  # doctest: +SKIP
>>> plots.task_map(tasks).savefig("map.png")  # doctest: +SKIP
"""

from __future__ import annotations

from hf_task2vec.plots.candidates import pareto, pareto_front
from hf_task2vec.plots.embeddings import embed_prefixes, layer_profile, noise_curve
from hf_task2vec.plots.page import map_page
from hf_task2vec.plots.tasks import distance_matrix, task_map

__all__ = [
    "distance_matrix",
    "embed_prefixes",
    "layer_profile",
    "map_page",
    "noise_curve",
    "pareto",
    "pareto_front",
    "task_map",
]
