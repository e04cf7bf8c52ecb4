"""The processes that share one job, through Accelerate; a single process is the trivial case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from hf_task2vec.errors import DistributedError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


class Processes:
    """Share work among processes, and gather what each found.

    Every process must call the methods in the same order: each exchange waits for all.

    Parameters
    ----------
    accelerator
        None for a single process.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator
        self.count: int = accelerator.num_processes if accelerator is not None else 1
        self.rank: int = accelerator.process_index if accelerator is not None else 0

    @property
    def is_main(self) -> bool:
        """True in the one process that shows progress and writes files."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's share of `items`: every count-th, each item in exactly one process."""
        return items[self.rank :: self.count]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        gathered: list[T] = gather_object([value])
        return gathered

    @contextmanager
    def together(self, stage: str) -> Iterator[None]:
        """Run a block in every process; if it fails in one, it fails in all, with that one's error.

        Without this a process that fails would leave the others waiting in their next exchange.

        Raises
        ------
        DistributedError
            In the processes that did not fail themselves.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:  # noqa: BLE001 (whatever it is, the other processes must hear of it)
            failure = error
        if self.count > 1:
            told = self.gather(None if failure is None else f"{type(failure).__name__}: {failure}")
            if failure is None and (bad := [(i, text) for i, text in enumerate(told) if text is not None]):
                rank, text = bad[0]
                failure = DistributedError(f"process {rank} of {self.count} failed while {stage}: {text}")
        if failure is not None:
            raise failure


def object_of_main(processes: Processes, value: Any) -> Any:
    """Return the main process's value in every process."""
    return processes.gather(value if processes.is_main else None)[0]
