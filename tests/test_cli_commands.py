"""The commands `embed`, `distance` and `index` in process."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cli_stub import run, stub


@pytest.fixture
def three_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[list[str], np.ndarray]:
    """Return the names of a saved embedding and of two tasks of an index, and the three vectors."""
    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.table import EmbeddingTable

    vectors = np.random.default_rng(0).lognormal(size=(3, 12)).astype(np.float32)
    features = np.ones((2, 3), dtype=np.float32)
    layers: dict[str, Any] = {"layer_names": ("a", "b"), "layer_sizes": np.array([4, 8])}
    probe = {"name": "timm/probe", "weights_hash": "0" * 64}
    mine = TaskEmbedding(vectors[0], **layers, feature_mean=features[0], feature_var=features[0], probe=probe,
                         task={"dataset": "mine"}, descriptors={})  # fmt: skip
    mine.save(tmp_path / "mine")
    table = EmbeddingTable(probe["name"], probe["weights_hash"], ("mnist", "dtd"), vectors[1:], **layers,
                           feature_mean=features, feature_var=features, descriptors=({}, {}))  # fmt: skip
    zoo = SimpleNamespace(load=lambda path: SimpleNamespace(embeddings=lambda: table))
    stub(monkeypatch, "zoo", ZooIndex=zoo)
    return [str(tmp_path / "mine"), "mnist", "dtd"], vectors.astype(np.float64)


def test_distances_of_folders_and_tasks_of_the_index(three_tasks: tuple[list[str], np.ndarray]) -> None:
    from hf_task2vec.distance import kl, log_correlation

    names, vectors = three_tasks
    sizes = np.array([4, 8])
    document = json.loads(run("distance", *names, "--kind", "kl", "--json").stdout)
    assert (document["kind"], document["tasks"]) == ("kl", names)
    expected = [[kl(a, b, sizes) for b in vectors] for a in vectors]
    np.testing.assert_allclose(document["distances"], expected, rtol=1e-12)

    quiet = [line.split("\t") for line in run("distance", *names[:2], "-q").stdout.splitlines()]
    assert [line[:2] for line in quiet] == [[names[0], names[1]], [names[1], names[0]]]
    assert float(quiet[0][2]) == pytest.approx(log_correlation(vectors[0], vectors[1], sizes), rel=1e-5)
    assert run("distance", *names).stdout.splitlines()[0].split() == ["from", "\\", "to", *names]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["mnist", "nowhere"], 4, "'nowhere' is neither a folder nor a task of the index, which has: dtd, mnist"),
        (["mnist", "dtd", "--kind", "euclid"], 2, "'euclid' is no distance; there are: asymmetric, cosine"),
        (["mnist", "."], 4, "no embedding in .: embedding.json is missing"),
    ],
)
def test_distances_that_cannot_be(three_tasks: Any, arguments: list[str], code: int, message: str) -> None:
    result = run("distance", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr


def stub_cache(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    def load_probe(name: str | None, *, token: str | None) -> SimpleNamespace:
        return SimpleNamespace(name=name, token=token, weights_hash=f"hash of {name}")

    stub(monkeypatch, "cache", default_device=lambda: device, load_probe=load_probe)


def test_embed_passes_on_and_saves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = []

    def embed_task(task: Any, probe: Any, **options: Any) -> SimpleNamespace:
        calls.append({"task": task, "probe": probe, **options})
        return SimpleNamespace(save=lambda path: path.mkdir(), describe=lambda: {"task": {"dataset": "x"}})

    stub(monkeypatch, "embed", embed_task=embed_task)
    stub_cache(monkeypatch, "best")
    stub(monkeypatch, "task", Task=SimpleNamespace(from_dataset=lambda dataset, **options: (dataset, options)))
    output = tmp_path / "out"
    options = ["--split", "test", "--seed", "3", "--batch-size", "8", "--probe", "timm/p", "--token", "hf_x", "--json"]
    document = json.loads(run("embed", "org/data", "-o", str(output), *options).stdout)
    assert document == {"path": str(output), "task": {"dataset": "x"}}
    assert output.is_dir()
    task_options = {"split": "test", "seed": 3, "token": "hf_x", "streaming": False, "max_samples": 256}
    (call,) = calls
    network = call.pop("probe")
    assert (network.name, network.token) == ("timm/p", "hf_x")
    assert call == {
        "task": ("org/data", task_options), "seed": 3, "batch_size": 8, "progress": False, "device": "best",
    }  # fmt: skip


def test_index_validate_lists_the_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = ["scores.csv: row 2", "tasks.csv: row 5"]
    index = SimpleNamespace(validate=lambda: problems, info=lambda: {"counts": {"tasks": 2}})
    stub(monkeypatch, "zoo", ZooIndex=SimpleNamespace(load=lambda path: index))
    result = run("index", "validate")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.splitlines()[:2] == problems
    assert result.stderr.splitlines()[2].startswith("error: 2 of the index's facts are wrong")
    problems.clear()
    result = run("index", "validate")
    assert (result.exit_code, result.stdout.split()) == (0, ["valid", "True", "counts.tasks", "2"])


def test_common_options_of_a_nested_command(monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = SimpleNamespace(load=lambda path: SimpleNamespace(info=lambda: {"path": str(path), "counts": {"tasks": 3}}))
    stub(monkeypatch, "zoo", ZooIndex=zoo)
    for arguments in (["--json", "index", "info"], ["index", "--json", "info"], ["index", "info", "--json"]):
        assert json.loads(run(*arguments, "here").stdout) == {"path": "here", "counts": {"tasks": 3}}
