"""Work on the cells of a build on a Ray cluster: one Ray task a cell, results as bytes to the driver."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from hf_task2vec import __version__
from hf_task2vec.embedding import Computing
from hf_task2vec.errors import DistributedError
from hf_task2vec.evidence.cells import Cell, Result, Worker, failed

#: Weights that each of a node's several workers keeps loaded.
_PROBE_BYTES = 1 << 30
#: Cells that the cluster knows of at a time: enough to keep workers busy, few enough for the driver's memory.
_AHEAD = 1000


@dataclass(frozen=True)
class Cluster:
    """How to use a Ray cluster."""

    address: str = "auto"
    """As for `ray.init`: ``"auto"`` for the cluster that this machine belongs to, ``"host:6379"``, or ``"local"`` to
    start one here for the time of the build."""
    gpus_per_cell: float = 0.0
    """Share of a GPU that a cell needs: 0.25 lets four cells use one. 0 computes on CPUs."""
    cpus_per_cell: float = 1.0
    """CPU cores that a cell needs."""
    max_retries: int = 3
    """How often a cell is started again when its node or process dies."""

    def fits(self, node: Mapping[str, float]) -> bool:
        """Say whether a cell can run on a node with these resources."""
        return node.get("CPU", 0.0) >= self.cpus_per_cell and node.get("GPU", 0.0) >= self.gpus_per_cell


def run_on_cluster(cells: Sequence[Cell], cluster: Cluster, computing: Computing) -> Generator[tuple[Cell, Result]]:
    """Yield each cell's result as it arrives, in any order.

    A cell whose node or process dies is started again elsewhere, at most `max_retries` times, and then failed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise DistributedError("a build on a cluster needs Ray: pip install 'hf-task2vec[ray]'") from error
    computing = replace(computing, device=computing.device or ("cuda" if cluster.gpus_per_cell else "cpu"))
    with _connected(cluster):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(map(cluster.fits, nodes)):  # Ray would wait for one for ever
            found = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise DistributedError(
                f"no node of the cluster can run a cell of {cluster.cpus_per_cell:g} CPUs and "
                f"{cluster.gpus_per_cell:g} GPUs; its nodes have: {found or 'nothing'}"
            )
        remote = ray.remote(
            num_cpus=cluster.cpus_per_cell,
            num_gpus=cluster.gpus_per_cell,
            max_retries=cluster.max_retries,
            scheduling_strategy="SPREAD",
        )(_run)
        queue, running = iter(cells), dict[Any, Cell]()
        try:
            while True:
                for cell in islice(queue, _AHEAD - len(running)):
                    running[remote.remote(__version__, computing, cell)] = cell
                if not running:
                    return
                (reference,), _ = ray.wait(list(running), num_returns=1)
                cell = running.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:  # a cell's own errors are results, so the node is at fault
                    raise DistributedError(
                        f"a node cannot work on {cell}: {_last_line(error)}. Every node needs hf-task2vec {__version__}"
                    ) from error
                except ray.exceptions.RayError as error:
                    reason = f"its node or process died, as at every retry: {type(error).__name__}: {_last_line(error)}"
                    result = failed(cell, DistributedError(reason))
                yield cell, result
        finally:
            for reference in running:  # interrupted: nothing new is started
                ray.cancel(reference, force=False)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports to nobody
    # One that is started here needs no dashboard; of one that runs already, this cannot be asked.
    options: dict[str, Any] = {"include_dashboard": False} if cluster.address == "local" else {}
    try:
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises plain ones, too, for a start that takes too long
        raise DistributedError(
            f"no Ray cluster at {cluster.address!r}: {error}. Start one with `ray start --head`, and join "
            "other machines with `ray start --address HOST:6379`"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _run(version: str, computing: Computing, cell: Cell) -> Result:
    if version != __version__:
        raise DistributedError(f"it has hf-task2vec {__version__}")
    declared = cell.task.spec.dataset  # of a local folder the absolute path
    for folder in (Path(declared) if cell.task.revision is None else None, cell.checkpoint.folder):
        if folder is not None and folder.is_absolute() and not folder.is_dir():
            raise DistributedError(
                f"it has no folder {str(folder)!r}; put it on a file system that all nodes share under the same path, "
                "or take the dataset or checkpoint from the Hub"
            )
    return _worker(computing).run(cell)


@lru_cache(maxsize=1)
def _worker(computing: Computing) -> Worker:
    """One worker a process: Ray runs many cells in a process, which keeps probes and samples between them."""
    return Worker(computing, _PROBE_BYTES)


def _last_line(error: BaseException) -> str:
    return str(error).strip().rpartition("\n")[2].strip() or type(error).__name__
