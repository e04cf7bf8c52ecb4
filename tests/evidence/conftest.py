"""Two small tasks and three random networks to measure on them."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
import torch

from tests.support.architectures import save_timm
from tests.support.synthetic import dataset


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks with train and test split in ``data/``, three random networks in ``nets/``."""
    root = tmp_path_factory.mktemp("world")
    for i in range(2):
        parts = {"train": dataset(30, seed=i), "test": dataset(15, seed=i + 10)}
        datasets.DatasetDict(parts).save_to_disk(root / "data" / f"task{i}")
    with torch.random.fork_rng():
        for i in range(3):
            torch.manual_seed(i)
            save_timm(root / "nets" / f"net{i}", "test_resnet")
    return root


@pytest.fixture(scope="session")
def tasks(world: Path) -> list[str]:
    return [str(world / "data" / f"task{i}") for i in range(2)]


@pytest.fixture(scope="session")
def nets(world: Path) -> list[str]:
    return [str(world / "nets" / f"net{i}") for i in range(3)]
