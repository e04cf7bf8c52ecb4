"""The processes that share one embedding, through Accelerate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from hf_task2vec.errors import DistributedError

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState

T = TypeVar("T")


def launch() -> tuple[int, int]:
    """Return this process's rank and the number of processes, as ``accelerate launch`` or ``torchrun`` set them."""
    if "LOCAL_RANK" not in os.environ:  # the other two are common names that mean nothing alone
        return 0, 1
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def launched(*, cpu: bool = False) -> Iterator[PartialState | None]:
    """Connect the processes that this one was launched with, on the CPU if asked to; None if it is alone."""
    count = launch()[1]
    if count == 1:
        yield None
        return
    import torch
    from accelerate import PartialState

    # Where there is no GPU, Accelerate leaves the processes alone unless told to use the CPU.
    state = PartialState(cpu=cpu or not getattr(torch, "accelerator", torch.cuda).is_available())
    if state.num_processes != count:
        raise DistributedError(
            f"{count} processes were launched, but {state.num_processes} work together on {state.device}; "
            "use the CPU, or a kind of device for which accelerate can share work"
        )
    try:
        yield state
    finally:
        state.destroy_process_group()


def gather(value: T, accelerator: Accelerator | PartialState | None) -> list[T]:
    """Return the values of all processes, in the order of their ranks; each waits for all."""
    if accelerator is None or accelerator.num_processes == 1:
        return [value]
    from accelerate.utils import gather_object

    gathered: list[T] = gather_object([value])
    return gathered
