"""The scripts that measure time and memory: their statistics, and what they make to measure on."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.speed import end_to_end, fisher, fisher_peers
from benchmarks.speed.fisher_plot import plot

ROOT = Path(__file__).resolve().parents[2]


def test_photographs_have_the_size_asked_for_and_grain() -> None:
    image = Image.new("RGB", (40, 30), (100, 150, 200))
    data = end_to_end.photograph(image, 120, np.random.default_rng(0), mirror=False)
    decoded = Image.open(io.BytesIO(data))
    assert (decoded.format, decoded.size) == ("JPEG", (120, 90))
    assert 3 < np.asarray(decoded).std(axis=(0, 1)).mean() < 9
    assert data == end_to_end.photograph(image, 120, np.random.default_rng(0), mirror=False)


def test_ratios_are_taken_round_by_round() -> None:
    rounds = [
        {"passes": {"seconds": s, "cpu_seconds": 1.0}, "whole": {"seconds": 1.5 * s, "cpu_seconds": 2.0}}
        for s in (1, 10, 3)
    ]
    found = end_to_end.summary(rounds)
    assert found["whole"]["ratio"] == found["whole"]["ratio_min"] == found["whole"]["ratio_max"] == 1.5
    assert (found["whole"]["median_s"], found["whole"]["cpu_ratio"]) == (4.5, 2.0)


def test_ratios_are_to_the_first_method() -> None:
    found = fisher.ratios({"plain": [1.0, 2.0, 4.0], "sketch": [0.5, 3.0, 4.0]})
    assert found["sketch"] == {"median_s": 3.0, "ratio": 1.0, "ratio_min": 0.5, "ratio_max": 1.5}


def test_the_original_loop_is_extrapolated_from_one_batch() -> None:
    found = fisher.original_loop({"batch_mean_loop": {"median_s": 0.8}, "sketch": {"median_s": 0.4}}, 8)
    assert found["seconds_of_all_draws_extrapolated"] == pytest.approx(1000)
    assert found["times_the_sketch_extrapolated"] == pytest.approx(1000 / (0.05 * 256))


def test_a_peer_that_fails_leaves_the_network_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoils(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
        model.register_forward_hook(lambda *_: None)
        raise ValueError("cannot do that\nat all")

    monkeypatch.setattr(fisher_peers, "PEERS", {"loop": fisher_peers.batch_mean_loop, "spoils": spoils})
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    able, unable = fisher_peers.able_peers(net, torch.randn(3, 3, 2, 2), torch.tensor([0, 1, 0]))
    assert list(able) == ["loop"]
    assert unable == {"spoils": "ValueError: cannot do that"}
    assert not net._forward_hooks
    assert all(p.grad is None for p in net.parameters())


def test_what_is_there_is_drawn(tmp_path: Path) -> None:
    points = [{"classes": c, "seconds_per_image": 0.1} for c in (2, 10)]
    plot({"device": "cpu", "scaling": {"classes": points}}, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 1000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_grows_with_the_batch() -> None:
    ballast = np.ones(2**28)  # 2 GiB in this process must not count
    found = fisher.memory("resnet18", "cpu", (2, 12))
    for method in ("plain", "sketch"):
        assert 1 < found[method]["mib_per_image"] < 200, method
        assert 100 < found[method]["peak_mib"][0] < ballast.nbytes / 2**20, method


@pytest.mark.slow
@pytest.mark.parametrize("name", ["speed.end_to_end", "speed.fisher", "index.matrix", "docs.tables"])
def test_scripts_explain_themselves(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"python -m benchmarks.{name}" in done.stdout
