"""The scripts that measure the Fisher embedding: their statistics, class trees and resuming."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.tasks.task import Task

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    """Import a script as it is run: its neighbours are importable by their bare names."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


statistics, trees = script("properties_statistics"), script("properties_trees")
tasks, end_to_end = script("properties_tasks"), script("end_to_end")


def test_tree_distance_counts_edges() -> None:
    d = trees.tree_distances([("living", "animal"), ("living", "animal"), ("living",), ("thing", "food")])
    assert d[0].tolist() == [0, 2, 3, 6]


def test_distances_that_are_the_tree_agree_with_it_wholly() -> None:
    tree = trees.tree_distances([("a", "b"), ("a", "b"), ("a", "c"), ("a", "c"), ("d", "e"), ("d", "e"), ("d", "f")])
    found = statistics.tree_agreement(tree / 10, tree, permutations=499)
    for name in ("cophenetic", "cophenetic_own", "pearson", "spearman", "same_branch_nearest"):
        assert found[name] == pytest.approx(1.0), name
    assert found["p_value"] < 0.05
    assert 0 < found["same_branch_by_chance"] < 0.5


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.from_dataset("sklearn:digits", max_samples=40)


def test_permuted_classes_keep_their_images(digits: Task) -> None:
    other = tasks.permuted(digits, seed=1)
    assert other.label_names != digits.label_names
    assert [other.label_names[i] for i in other.labels] == [digits.label_names[i] for i in digits.labels]
    assert dict(zip(other.label_names, other.class_counts, strict=True)) == dict(
        zip(digits.label_names, digits.class_counts, strict=True)
    )
    assert other.fingerprint != digits.fingerprint


def test_coarsened_classes_are_unions(digits: Task) -> None:
    other = tasks.coarsened(digits, 3, seed=0)
    assert other.num_classes == 3
    assert other.class_counts.sum() == digits.class_counts.sum()
    assert all(len(set(other.labels[digits.labels == c])) == 1 for c in range(10))


def _embedding(values: np.ndarray) -> TaskEmbedding:
    return TaskEmbedding(
        values=values.astype(np.float32)[None],
        layer_names=("a", "b"),
        layer_sizes=np.array([len(values) // 2] * 2, dtype=np.int64),
        feature_mean=np.zeros((1, 2), dtype=np.float32),
        feature_var=np.zeros((1, 2), dtype=np.float32),
        probe={"name": "p", "weights_hash": "0"},
        tasks=({},),
        task_descriptors=({},),
    )


def test_an_embedding_is_read_again(digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def embed_task(task: Task, probe: Any, **settings: Any) -> TaskEmbedding:
        made.append(settings)
        return _embedding(np.arange(8.0))

    probe = SimpleNamespace(config={"name": "p", "preprocessing": {"side": 1}})
    monkeypatch.setattr(tasks, "embed_task", embed_task)
    for _ in range(2):
        assert tasks.embedded(digits, probe, tmp_path).values.tolist() == [list(range(8))]
    assert len(made) == 1
    tasks.embedded(digits, probe, tmp_path, label_sampling="exact")
    probe.config = {"name": "p", "preprocessing": {"side": 2}}
    tasks.embedded(digits, probe, tmp_path)
    assert len(made) == 3


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


def test_every_way_to_embed_must_meet_the_target() -> None:
    def judged(load: float = 1.0, **cpu: float) -> tuple[bool | None, bool]:
        names = ("passes", "whole", "embed_pixels", "embed_files")
        rounds = [{name: {"seconds": 1.3, "cpu_seconds": cpu.get(name, 1.0)} for name in names}]
        found = end_to_end.judged(rounds, [load], cores=2)
        return found["met_in_seconds"], found["met_in_processor_seconds"]

    assert judged() == (True, True)
    assert judged(embed_files=1.36) == (True, False)
    assert judged(load=7.0) == (None, True)


def test_forward_passes_are_counted_by_image() -> None:
    class Probe:
        module = nn.Identity()

    def run() -> None:
        for _ in range(3):
            Probe.module(torch.zeros(4, 2))

    assert end_to_end.forward_passes(Probe(), run, 4) == 3.0
    assert not Probe.module._forward_pre_hooks


@pytest.fixture(scope="module")
def speed() -> ModuleType:
    return script("fisher_speed")


class TestFisherSpeed:
    def test_ratios_are_to_the_first_method(self, speed: ModuleType) -> None:
        found = speed.ratios({"plain": [1.0, 2.0, 4.0], "sketch": [0.5, 3.0, 4.0]})
        assert found["sketch"] == {"median_s": 3.0, "ratio": 1.0, "ratio_min": 0.5, "ratio_max": 1.5}

    def test_the_original_loop_is_extrapolated_from_one_batch(self, speed: ModuleType) -> None:
        found = speed.original_loop({"batch_mean_loop": {"median_s": 0.8}, "sketch": {"median_s": 0.4}}, 8)
        assert found["seconds_of_all_draws_extrapolated"] == pytest.approx(1000)
        assert found["times_the_sketch_extrapolated"] == pytest.approx(1000 / (0.05 * 256))

    def test_a_peer_that_fails_leaves_the_network_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        peers = script("fisher_peers")

        def spoils(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
            model.register_forward_hook(lambda *_: None)
            raise ValueError("cannot do that\nat all")

        monkeypatch.setattr(peers, "PEERS", {"loop": peers.batch_mean_loop, "spoils": spoils})
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        able, unable = peers.able_peers(net, torch.randn(3, 3, 2, 2), torch.tensor([0, 1, 0]))
        assert list(able) == ["loop"]
        assert unable == {"spoils": "ValueError: cannot do that"}
        assert not net._forward_hooks
        assert all(p.grad is None for p in net.parameters())

    def test_what_is_there_is_drawn(self, tmp_path: Path) -> None:
        draw = script("fisher_speed_plot").plot
        points = [{"classes": c, "seconds_per_image": 0.1} for c in (2, 10)]
        draw({"device": "cpu", "scaling": {"classes": points}}, tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as image:
            assert image.width > 1000

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
    def test_memory_grows_with_the_batch(self, speed: ModuleType) -> None:
        ballast = np.ones(2**28)  # 2 GiB in this process must not count
        found = speed.memory("resnet18", "cpu", (2, 12))
        for method in ("plain", "sketch"):
            assert 1 < found[method]["mib_per_image"] < 200, method
            assert 100 < found[method]["peak_mib"][0] < ballast.nbytes / 2**20, method


@pytest.mark.slow
@pytest.mark.parametrize("name", ["end_to_end", "fisher_speed", "properties"])
def test_scripts_explain_themselves(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), "--help"], capture_output=True, text=True, check=True
    )
    assert f"python benchmarks/{name}.py" in done.stdout
