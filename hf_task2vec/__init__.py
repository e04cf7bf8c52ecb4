"""Which Hub checkpoint should I fine-tune on my image dataset?

>>> from hf_task2vec import select_backbone
>>> ranking = select_backbone("org/dataset", max_params=30_000_000)  # doctest: +SKIP
>>> model, transform = ranking.best.load(num_classes=10)  # doctest: +SKIP

The public names are loaded when they are first used, so ``import hf_task2vec`` imports no other library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .embedding import DISTANCES as DISTANCES
    from .embedding import TaskEmbedding as TaskEmbedding
    from .embedding import embed_task as embed_task
    from .embedding import pairwise as pairwise
    from .errors import Task2VecError as Task2VecError
    from .evidence import build_index as build_index
    from .fisher import diagonal_fisher as diagonal_fisher
    from .fisher import fit_head as fit_head
    from .metric import RankingMetric as RankingMetric
    from .probes import Probe as Probe
    from .probes import linear_probe as linear_probe
    from .selection import Constraints as Constraints
    from .selection import Ranking as Ranking
    from .selection import select_backbone as select_backbone
    from .sharing import search_hub as search_hub
    from .tasks import Task as Task
    from .zoo import ZooIndex as ZooIndex

__version__ = "0.1.0"

_PUBLIC = {
    "embedding": ["DISTANCES", "TaskEmbedding", "embed_task", "pairwise"],
    "errors": ["Task2VecError"],
    "evidence": ["build_index"],
    "fisher": ["diagonal_fisher", "fit_head"],
    "metric": ["RankingMetric"],
    "probes": ["Probe", "linear_probe"],
    "selection": ["Constraints", "Ranking", "select_backbone"],
    "sharing": ["search_hub"],
    "tasks": ["Task"],
    "zoo": ["ZooIndex"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=_PUBLIC)
__all__ += ["__version__"]
