"""A dataset and two small networks on the loopback Hub, to train."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.architectures import files_of, save_timm
from tests.support.hub import HubServer
from tests.support.pictures import TEST, TRAIN, parquet
from tests.support.synthetic import dataset

#: Ids of checkpoints of the index.
NETS = ("timm/resnet18.a1_in1k", "timm/resnet34.a1_in1k")


def fill(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """Put ``org/photos``, coloured noise, and two small networks under the ids of `NETS` on a Hub."""
    import torch

    hub.create_dataset("org/photos", {TRAIN: parquet(dataset(36, seed=1)), TEST: parquet(dataset(25, seed=2))})
    with torch.random.fork_rng():
        for i, hub_id in enumerate(NETS):
            torch.manual_seed(i)
            save_timm(folder / f"net{i}", "test_resnet")
            hub.create_model(hub_id, files_of(folder / f"net{i}"))
    monkeypatch.setenv("HF_TOKEN", hub.tokens.write)
    return hub
