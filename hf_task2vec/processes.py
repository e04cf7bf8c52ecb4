"""The processes that share one job, through Accelerate; a single process is the trivial case."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from hf_task2vec.errors import DistributedError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


@dataclass(frozen=True)
class _Failure:
    """What a process sends instead of its next value when it cannot go on."""

    text: str


class Processes:
    """Share work among processes, and exchange what each found.

    Every process must make the same exchanges in the same order, inside :meth:`together`: each waits for all.

    Parameters
    ----------
    accelerator
        None for a single process.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self.accelerator = accelerator
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
        """Return the values of all processes, in the order of their ranks.

        Raises
        ------
        DistributedError
            A process failed before it came to this exchange.
        """
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        gathered: list[T] = gather_object([value])
        for rank, found in enumerate(gathered):
            if isinstance(found, _Failure):
                raise DistributedError(f"process {rank} of {self.count} failed: {found.text}")
        return gathered

    def of_main(self, make: Callable[[], T]) -> T:
        """Call `make` in the main process alone, and return its value in every process."""
        return self.gather(make() if self.is_main else None)[0]  # type: ignore[return-value]

    def main_first(self, make: Callable[[], T]) -> T:
        """Call `make` in the main process, then in the others, which find in the caches what it downloaded."""
        if self.is_main:
            value = make()
            self.gather(None)
            return value
        self.gather(None)
        return make()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a block in every process; if it fails in one, it fails in all, with that one's error.

        Whatever exchange the others are waiting in receives the failure, so none waits for ever.

        Raises
        ------
        DistributedError
            In the processes that did not fail themselves.
        """
        try:
            yield
            self.gather(None)  # who is done first stays to hear whether all were
        except DistributedError:
            raise  # all heard of it
        except Exception as error:
            # Where the others are gone already, this process's own error says more than theirs.
            with suppress(RuntimeError):
                self._tell(f"{type(error).__name__}: {error}")
            raise

    def _tell(self, failure: str) -> None:
        if self.count > 1:
            from accelerate.utils import gather_object

            gather_object([_Failure(failure)])


def launch() -> tuple[int, int]:
    """Return this process's rank and the number of processes, as ``accelerate launch`` or ``torchrun`` set them."""
    if "LOCAL_RANK" not in os.environ:  # the other two are common names that mean nothing alone
        return 0, 1
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def launched(*, cpu: bool = False) -> Iterator[Processes]:
    """Yield the processes that this one was launched with, or it alone.

    Parameters
    ----------
    cpu
        Stay on the CPU even where there are GPUs.

    Raises
    ------
    DistributedError
        Accelerate did not connect the processes.
    """
    count = launch()[1]
    if count == 1:
        yield Processes()
        return
    import torch
    from accelerate import Accelerator

    # Where there is no GPU, Accelerate leaves the processes alone unless told to use the CPU.
    cpu = cpu or not getattr(torch, "accelerator", torch.cuda).is_available()
    accelerator = Accelerator(cpu=cpu, mixed_precision="no")
    if accelerator.num_processes != count:
        raise DistributedError(
            f"{count} processes were launched, but {accelerator.num_processes} work together on {accelerator.device}; "
            "use the CPU, or a kind of device for which accelerate can share work"
        )
    try:
        yield Processes(accelerator)
    finally:
        accelerator.end_training()
