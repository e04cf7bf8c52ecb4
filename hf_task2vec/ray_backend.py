"""Run the cells of a sweep on a Ray cluster: one Ray task a cell, results as bytes to the driver."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hf_task2vec.cells import Cell, CellResult, failed
from hf_task2vec.errors import DistributedError
from hf_task2vec.sweep_inputs import Failure

logger = logging.getLogger(__name__)

LOCAL = "local"
#: Weights that each of a node's several workers keeps loaded.
_PROBE_BYTES = 1 << 30
#: Cells submitted for each that can run at once: enough to keep workers busy, few enough for the driver's memory.
_AHEAD = 3


@dataclass(frozen=True)
class Cluster:
    """How to use a Ray cluster.

    Attributes
    ----------
    address
        As for `ray.init`: ``"auto"`` for the cluster that this machine belongs to, ``"host:6379"``, or ``"local"`` to
        start one here for the time of the sweep.
    gpus_per_cell
        Share of a GPU that a cell needs: 0.25 lets four cells use one. 0 computes on CPUs.
    cpus_per_cell
        CPU cores that a cell needs.
    max_retries
        How often a cell is started again when its node or process dies.
    """

    address: str = "auto"
    gpus_per_cell: float = 0.0
    cpus_per_cell: float = 1.0
    max_retries: int = 3


@contextlib.contextmanager
def connected(cluster: Cluster) -> Iterator[int]:
    """Connect to a cluster for a block; yield how many cells run at once on it.

    Raises
    ------
    DistributedError
        Ray is not installed, there is no such cluster, or none of its nodes is large enough for a cell.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise DistributedError("a sweep on a cluster needs Ray: pip install 'hf-task2vec[ray]'") from error
    mine = not ray.is_initialized()
    if mine:
        # One that is started here needs no dashboard; of one that runs already, this cannot be asked.
        options: dict[str, Any] = {"include_dashboard": False} if cluster.address == LOCAL else {}
        with _without_usage_report():
            try:
                ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR, **options)
            except Exception as error:  # Ray raises plain ones, too, for a start that takes too long
                raise DistributedError(
                    f"no Ray cluster at {cluster.address!r}: {error}. Start one with `ray start --head`, and join "
                    "other machines with `ray start --address HOST:6379`"
                ) from error
    try:
        yield _slots(cluster)
    finally:
        if mine:
            ray.shutdown()


@contextlib.contextmanager
def _without_usage_report() -> Iterator[None]:
    """Keep a cluster that is started here from reporting to Ray's makers; one that runs already is its owner's."""
    name = "RAY_USAGE_STATS_ENABLED"
    before = os.environ.get(name)
    os.environ.setdefault(name, "0")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)


def _slots(cluster: Cluster) -> int:
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    slots = sum(_slots_of(resources, cluster) for resources in alive)
    if not slots:
        found = "; ".join(f"{r.get('CPU', 0):g} CPUs and {r.get('GPU', 0):g} GPUs" for r in alive)
        raise DistributedError(
            f"no node of the cluster can run a cell of {cluster.cpus_per_cell:g} CPUs and {cluster.gpus_per_cell:g} "
            f"GPUs; its nodes have: {found or 'nothing'}"
        )
    return slots


def _slots_of(resources: Mapping[str, float], cluster: Cluster) -> int:
    needs = {"CPU": cluster.cpus_per_cell, "GPU": cluster.gpus_per_cell}
    return min(int(resources.get(name, 0.0) / need + 1e-9) for name, need in needs.items() if need > 0)


def check_nodes(folders: Iterable[Path]) -> None:
    """Check every node: the same version of this package, and the local folders that the sweep reads.

    Raises
    ------
    DistributedError
        A node lacks one of them; the message says which and what would work.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from hf_task2vec import __version__

    wanted = sorted({str(folder) for folder in folders})
    look = ray.remote(num_cpus=0, max_retries=0)(_look_around)
    for node in (node for node in ray.nodes() if node["Alive"]):
        place = f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        try:
            version, missing = ray.get(look.options(scheduling_strategy=strategy).remote(wanted))
        except ray.exceptions.RayError as error:
            raise DistributedError(
                f"node {place} cannot run hf-task2vec: {_last_line(error)}; install hf-task2vec {__version__} there"
            ) from error
        if version != __version__:
            raise DistributedError(
                f"node {place} has hf-task2vec {version}, the driver {__version__}; install the same"
            )
        if missing:
            raise DistributedError(
                f"node {place} has no folder {missing[0]!r}; put it on a file system that all nodes share under the "
                "same path, or take the dataset or checkpoint from the Hub"
            )


def _look_around(folders: list[str]) -> tuple[str, list[str]]:
    from hf_task2vec import __version__

    return __version__, [folder for folder in folders if not os.path.isdir(folder)]


def run_on_cluster(
    cells: Iterable[tuple[Cell, bytes | None]], cluster: Cluster, slots: int, options: Mapping[str, Any]
) -> Iterator[tuple[Cell, CellResult]]:
    """Yield each cell's result as it arrives, in any order; inside :func:`connected`.

    A cell whose node or process dies is started again elsewhere, at most `max_retries` times, and then failed.

    Parameters
    ----------
    cells
        Cells, each with the features kept of it from an earlier time.
    slots
        How many run at once.
    options
        Arguments of :class:`~hf_task2vec.sweep_worker.Worker`.
    """
    import ray

    remote = ray.remote(
        num_cpus=cluster.cpus_per_cell,
        num_gpus=cluster.gpus_per_cell,
        max_retries=cluster.max_retries,
        scheduling_strategy="SPREAD",
    )(_run)
    settings = tuple(sorted(options.items()))
    running: dict[Any, Cell] = {}
    queue = iter(cells)
    try:
        while True:
            while len(running) < _AHEAD * slots and (item := next(queue, None)) is not None:
                running[remote.remote(settings, *item)] = item[0]
            if not running:
                return
            for reference in ray.wait(list(running), num_returns=1)[0]:
                cell = running.pop(reference)
                yield cell, _result(cell, reference)
    finally:
        for reference in running:  # interrupted: nothing new is started
            ray.cancel(reference, force=False)


def _result(cell: Cell, reference: Any) -> CellResult:
    import ray

    try:
        result: CellResult = ray.get(reference)
    except ray.exceptions.RayError as error:  # not the cell's own errors, which are results
        name = type(error).__name__
        return failed(cell, Failure(name, f"its node or process died, as at every retry: {_last_line(error)}"))
    return result


def _run(settings: tuple[tuple[str, Any], ...], cell: Cell, features: bytes | None) -> CellResult:
    return _worker(settings).run(cell, features)


@lru_cache(maxsize=1)
def _worker(settings: tuple[tuple[str, Any], ...]) -> Any:
    """One worker a process: Ray runs many cells in a process, which keeps probes and samples between them."""
    from hf_task2vec.sweep_worker import Worker

    return Worker(**dict(settings), probe_bytes=_PROBE_BYTES)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
