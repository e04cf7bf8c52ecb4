"""The second stage: candidates are downloaded from the loopback Hub, measured on the sample, and ranked again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from hf_task2vec.embedding.embed import embed_task
from hf_task2vec.errors import SelectionError
from hf_task2vec.metric.ranking_metric import RankingMetric
from hf_task2vec.probes.probe import Probe
from hf_task2vec.probes.scores import Score
from hf_task2vec.probes.transfer import linear_probe
from hf_task2vec.selection.ranking import Candidate, Ranking
from hf_task2vec.selection.recommendation import Recommender
from hf_task2vec.selection.refinement import next_candidate
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex
from tests.support.architectures import files_of, save_timm
from tests.support.hub import HubServer
from tests.support.synthetic import TINY, dataset, tiny_probe, zoo

#: The four of the synthetic index that the loopback Hub holds, best first by their scores in it.
ON_HUB = ["org/best-unknown", "org/huge", "org/mid", "org/small"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def probe() -> Probe:
    return tiny_probe()


@pytest.fixture(scope="module")
def index(probe: Probe) -> ZooIndex:
    twin = embed_task(Task.from_dataset(dataset(48, seed=7)), probe)
    return zoo({"twin": twin}, weights_hash=probe.weights_hash)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of a random network for each id of `ON_HUB`."""
    import torch

    files = {}
    with torch.random.fork_rng():
        for seed, hub_id in enumerate(ON_HUB):
            torch.manual_seed(seed)
            folder = tmp_path_factory.mktemp("checkpoint")
            save_timm(folder)
            files[hub_id] = files_of(folder)
    return files


@pytest.fixture
def filled(hub: HubServer, checkpoints: dict[str, dict[str, bytes]]) -> HubServer:
    for hub_id, files in checkpoints.items():
        hub.create_model(hub_id, files)
    return hub


@pytest.fixture
def select(index: ZooIndex, probe: Probe) -> Callable[..., Ranking]:
    return partial(select_backbone, index=index, probe=probe, candidates=ON_HUB)


def downloaded(hub: HubServer) -> set[str]:
    """Repositories whose weights were fetched."""
    found = [re.match(r"/([^/]+/[^/]+)/resolve/.*safetensors", r.path) for r in hub.requests if r.method == "GET"]
    return {match[1] for match in found if match}


def sd_of_logit(c: Candidate) -> float:
    return c.std / (c.score * (1 - c.score))


def by_hand(task: Task, index: ZooIndex, probe: Probe, count: int) -> tuple[list[str], Ranking]:
    """The candidates that should be measured, in order, and the ranking that should come out."""
    frame = index.checkpoints[index.checkpoints["hub_id"].isin(ON_HUB)].reset_index(drop=True)
    recommender = Recommender(embed_task(task, probe), index, RankingMetric.from_index(index), frame)
    measured: dict[str, Score] = {}
    for _ in range(count):
        name = next_candidate(recommender.predict(measured), measured, set(ON_HUB) - set(measured))
        measured[name] = linear_probe(name, task)
    return list(measured), recommender.rank(measured, top_k=10)


# ---------------------------------------------------------------------- the second stage


def test_two_are_downloaded_measured_and_ranked_again(
    select: Callable[..., Ranking], filled: HubServer, index: ZooIndex, probe: Probe
) -> None:
    task = Task.from_dataset(dataset(48))
    first = select(task)
    assert not filled.requests  # the first stage downloads nothing
    refined = select(task, refine=2)
    fetched = downloaded(filled)
    names, expected = by_hand(task, index, probe, 2)
    assert names[0] == first.best.hub_id == "org/best-unknown"
    assert fetched == set(names)
    assert refined.candidates == expected.candidates
    before = {c.hub_id: c for c in first}
    for c in refined:
        assert c.measured == (linear_probe(c.hub_id, task).value if c.hub_id in names else None)
        assert sd_of_logit(c) < sd_of_logit(before[c.hub_id])  # what is learned of one tells of the others
        assert c.residual == pytest.approx(c.score - c.prior)
    assert [c.rank for c in refined] == [1, 2, 3, 4]
    scores = [c.score for c in refined]
    assert scores == sorted(scores, reverse=True)
    assert refined.warnings == first.warnings
    assert refined.summary.startswith("2 candidates measured on the sample. Take ")
    assert refined.best.hub_id in refined.summary


def test_the_probe_is_not_measured_again(select: Callable[..., Ranking], filled: HubServer) -> None:
    refined = select(dataset(48), candidates=[TINY, "org/small"], refine=2)
    assert downloaded(filled) == {"org/small"}
    assert {c.hub_id: c.measured is None for c in refined} == {TINY: True, "org/small": False}
    assert refined.warnings == ()


def test_bytes_are_a_limit(select: Callable[..., Ranking], filled: HubServer) -> None:
    refined = select(dataset(48), refine=3, refine_bytes=4 * 31e6)  # org/mid has 25M parameters, org/small 5M
    assert downloaded(filled) == {"org/mid", "org/small"}
    (note,) = refined.warnings
    assert note == (
        "stopped after 2 of 3 measurements: no candidate of known size fits into what is left of 1.24e+08 bytes"
    )


def test_a_bad_measurement_moves_a_candidate_down(
    select: Callable[..., Ranking], filled: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its features are made constant: no better than guessing."""
    import torch

    features = Probe.features

    def broken(self: Probe, batch: torch.Tensor) -> torch.Tensor:
        real = features(self, batch)
        return torch.ones_like(real) if self.name == "org/best-unknown" else real

    monkeypatch.setattr(Probe, "features", broken)
    refined = select(dataset(48), refine=2)
    by_id = {c.hub_id: c for c in refined}
    assert by_id["org/best-unknown"].measured < 0.5
    assert by_id["org/best-unknown"].rank > len(refined) / 2
    assert refined.summary.endswith("Before measuring, org/best-unknown was first.")


def test_measured_accuracies_are_shown(select: Callable[..., Ranking], filled: HubServer) -> None:
    refined = select(dataset(48), refine=1)
    shown = {c["hub_id"]: c["measured"] for c in json.loads(refined.to_json())["candidates"]}
    (measured,) = [c for c in refined if c.measured is not None]
    assert shown == {hub_id: measured.measured if hub_id == measured.hub_id else None for hub_id in ON_HUB}
    cell = f"{100 * measured.measured:.1f}"
    lines = repr(refined).splitlines()
    assert lines[1].split() == [
        "rank",
        "checkpoint",
        "accuracy",
        "80",
        "%",
        "interval",
        "measured",
        "params",
        "licence",
    ]
    assert lines[1 + measured.rank].split()[4] == cell
    assert "<th>measured</th>" in refined._repr_html_()
    assert f"<td>{cell}</td>" in refined._repr_html_()
    assert refined.to_pandas()["measured"].notna().sum() == 1


def test_top_k_may_be_smaller_or_larger(select: Callable[..., Ranking], filled: HubServer) -> None:
    assert len(select(dataset(48), refine=2, top_k=1)) == 1
    assert len(downloaded(filled)) == 2
    refined = select(dataset(48), refine=9, top_k=3)  # more than there are
    assert downloaded(filled) == set(ON_HUB)
    assert len(refined) == 3
    assert "4 candidates measured" in refined.summary


# ---------------------------------------------------------------------- candidates that cannot be measured


def missing(hub: HubServer, files: dict[str, bytes]) -> None:
    pass


def gated(hub: HubServer, files: dict[str, bytes]) -> None:
    hub.create_model("org/best-unknown", files, gated=True)


def cut_weights(hub: HubServer, files: dict[str, bytes]) -> None:
    half = files["model.safetensors"][: len(files["model.safetensors"]) // 2]
    hub.create_model("org/best-unknown", {**files, "model.safetensors": half})


def unknown_architecture(hub: HubServer, files: dict[str, bytes]) -> None:
    config = {**json.loads(files["config.json"]), "architecture": "net_of_tomorrow"}
    hub.create_model("org/best-unknown", {**files, "config.json": json.dumps(config).encode()})


def odd_preprocessing(hub: HubServer, files: dict[str, bytes]) -> None:
    config = json.loads(files["config.json"])
    config["pretrained_cfg"]["mean"] = "grey"
    hub.create_model("org/best-unknown", {**files, "config.json": json.dumps(config).encode()})


def weights_that_are_not_finite(hub: HubServer, files: dict[str, bytes]) -> None:
    import torch
    from safetensors.torch import load, save

    state = load(files["model.safetensors"])
    state["conv1.0.weight"] = torch.full_like(state["conv1.0.weight"], torch.nan)
    hub.create_model("org/best-unknown", {**files, "model.safetensors": save(state)})


def failing_server(hub: HubServer, files: dict[str, bytes]) -> None:
    hub.create_model("org/best-unknown", files)
    hub.inject(pattern="best-unknown/resolve/.*safetensors", status=500, times=None)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (missing, "No Hub repository 'org/best-unknown'"),
        (gated, "'org/best-unknown' is gated: accept its terms"),
        (cut_weights, "cannot load 'org/best-unknown'"),
        (unknown_architecture, "architecture 'net_of_tomorrow'"),
        (odd_preprocessing, "timm cannot build the preprocessing .*'mean': 'grey'"),
        (weights_that_are_not_finite, "not finite"),
        (failing_server, "The Hub failed for 'org/best-unknown'|'org/best-unknown'.* cannot be reached"),
    ],
)
@pytest.mark.usefixtures("retry_sleeps")
def test_the_next_is_measured_in_place_of_one_that_cannot_be(
    select: Callable[..., Ranking],
    hub: HubServer,
    checkpoints: dict[str, dict[str, bytes]],
    fault: Callable[[HubServer, dict[str, bytes]], None],
    reason: str,
) -> None:
    for hub_id in ON_HUB[1:]:
        hub.create_model(hub_id, checkpoints[hub_id])
    fault(hub, checkpoints["org/best-unknown"])
    refined = select(dataset(48), refine=2, top_k=4)
    done = {c.hub_id for c in refined if c.measured is not None}
    assert len(done) == 2
    assert "org/huge" in done
    assert "org/best-unknown" not in done
    (warning,) = refined.warnings
    assert warning.startswith("org/best-unknown was not measured: ")
    assert re.search(reason, warning)
    assert "org/best-unknown" in {c.hub_id for c in refined}


def test_what_a_network_raises_does_not_end_the_run(
    select: Callable[..., Ranking], filled: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    features = Probe.features

    def out_of_memory(self: Probe, batch: torch.Tensor) -> torch.Tensor:
        if self.name == "org/best-unknown":
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        return features(self, batch)

    monkeypatch.setattr(Probe, "features", out_of_memory)
    refined = select(dataset(48), refine=1)
    (warning,) = refined.warnings
    assert warning == (
        "org/best-unknown was not measured: 'org/best-unknown' fails on the images of 'dataset' (batch_size=4, device "
        "cpu): OutOfMemoryError: tried to allocate 20 GiB"
    )
    assert [c.hub_id for c in refined if c.measured is not None] == ["org/huge"]
    if refined.best.hub_id == "org/best-unknown":
        assert "could not be measured (see the warnings). The best of those measured is org/huge: " in refined.summary


def test_when_none_can_be_measured_the_prediction_stands(select: Callable[..., Ranking], hub: HubServer) -> None:
    task = Task.from_dataset(dataset(48))
    first, refined = select(task), select(task, refine=2)
    assert refined.candidates == first.candidates
    assert refined.summary == f"No candidate could be measured. {first.summary}"
    assert len(refined.warnings) == len(ON_HUB)


# ---------------------------------------------------------------------- refusals


def test_refine_is_checked(select: Callable[..., Ranking]) -> None:
    for refine in (-1, 1.5, "2"):
        with pytest.raises(SelectionError, match=f"refine={refine!r} must be a whole number of at least 0"):
            select(dataset(24), refine=refine)
