"""Waits between the tries of a request, made immediate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest import mock


@contextmanager
def hurried() -> Iterator[list[float]]:
    """Make the retries of huggingface_hub and our own immediate; the list collects how long each would have slept."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    from hf_task2vec.hub import client

    sleeps: list[float] = []
    with ExitStack() as stack:
        for module in (_http, file_download, client):  # they use nothing else of `time`
            stack.enter_context(mock.patch.object(module, "time", SimpleNamespace(sleep=sleeps.append)))
        yield sleeps
