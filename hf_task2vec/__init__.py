"""Which Hub checkpoint should I fine-tune on my image dataset?

>>> from hf_task2vec import select_backbone
>>> ranking = select_backbone("org/dataset", max_params=30_000_000)  # doctest: +SKIP
>>> model, transform = ranking.best.load(num_classes=10)  # doctest: +SKIP

The names below are loaded when they are first used, so ``import hf_task2vec`` imports no other library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .embedding.distance import DISTANCES as DISTANCES
    from .embedding.distance import pairwise as pairwise
    from .embedding.embed import embed_task as embed_task
    from .embedding.task_embedding import TaskEmbedding as TaskEmbedding
    from .errors import Task2VecError as Task2VecError
    from .evidence.build import build_index as build_index
    from .fisher.diagonal import diagonal_fisher as diagonal_fisher
    from .fisher.head import fit_head as fit_head
    from .metric.ranking_metric import RankingMetric as RankingMetric
    from .probes.probe import Probe as Probe
    from .probes.transfer import linear_probe as linear_probe
    from .selection.limits import Constraints as Constraints
    from .selection.ranking import Ranking as Ranking
    from .selection.select import select_backbone as select_backbone
    from .sharing.search import search_hub as search_hub
    from .tasks.task import Task as Task
    from .zoo.index import ZooIndex as ZooIndex

__version__ = "0.1.0"

_MODULE_OF = {
    "Constraints": "selection.limits",
    "DISTANCES": "embedding.distance",
    "Probe": "probes.probe",
    "Ranking": "selection.ranking",
    "RankingMetric": "metric.ranking_metric",
    "Task": "tasks.task",
    "Task2VecError": "errors",
    "TaskEmbedding": "embedding.task_embedding",
    "ZooIndex": "zoo.index",
    "build_index": "evidence.build",
    "diagonal_fisher": "fisher.diagonal",
    "embed_task": "embedding.embed",
    "fit_head": "fisher.head",
    "linear_probe": "probes.transfer",
    "pairwise": "embedding.distance",
    "search_hub": "sharing.search",
    "select_backbone": "selection.select",
}

__all__ = [
    "DISTANCES",
    "Constraints",
    "Probe",
    "Ranking",
    "RankingMetric",
    "Task",
    "Task2VecError",
    "TaskEmbedding",
    "ZooIndex",
    "__version__",
    "build_index",
    "diagonal_fisher",
    "embed_task",
    "fit_head",
    "linear_probe",
    "pairwise",
    "search_hub",
    "select_backbone",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module at first use (PEP 562)."""
    try:
        module = _MODULE_OF[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
