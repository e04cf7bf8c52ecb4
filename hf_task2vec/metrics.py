"""The ways of ranking checkpoints for a task, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from hf_task2vec.baselines import BestImageNet, RidgeOnDescriptors, ShareOfWins, Static
from hf_task2vec.errors import MetricError
from hf_task2vec.metric import RankingMetric
from hf_task2vec.model2vec import Model2Vec
from hf_task2vec.nearest import NearestAsymmetric, NearestSymmetric

if TYPE_CHECKING:
    from hf_task2vec.metric_base import Metric
    from hf_task2vec.zoo import ZooIndex

_ALL = (
    RankingMetric,
    Static,
    ShareOfWins,
    BestImageNet,
    NearestSymmetric,
    NearestAsymmetric,
    Model2Vec,
    RidgeOnDescriptors,
)
#: Every metric by name: ``"trained"`` is the default, the others are what it has to beat.
METRICS: Mapping[str, type[Metric]] = MappingProxyType({metric.name: metric for metric in _ALL})


def check_metrics(names: Iterable[str]) -> None:
    """Raise MetricError if a name is not in `METRICS`."""
    if unknown := [name for name in names if name not in METRICS]:
        raise MetricError(f"metric {unknown[0]!r} is unknown; choose one of {', '.join(METRICS)}")


def load_metric(name: str, index: ZooIndex) -> Metric:
    """Return the metric of that name, ready to predict from an index.

    Raises
    ------
    MetricError
        There is no such metric, or the index does not hold what it needs.
    """
    check_metrics([name])
    return METRICS[name].from_index(index)
