"""The second stage: which candidate is measured next, when measuring stops, and what rankings make of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hf_task2vec.embedding.embed import embed_task
from hf_task2vec.errors import ProbeError
from hf_task2vec.metric.observations import CheckpointFeatures
from hf_task2vec.metric.prediction import Prediction
from hf_task2vec.metric.ranking_metric import RankingMetric
from hf_task2vec.probes.probe import Probe
from hf_task2vec.probes.scores import Score
from hf_task2vec.probes.transfer import linear_probe
from hf_task2vec.selection import refinement
from hf_task2vec.selection.limits import Budget, Eligible
from hf_task2vec.selection.ranking import Candidate, Ranking
from hf_task2vec.selection.recommendation import Recommender
from hf_task2vec.selection.refinement import Measurements, measure_promising, next_candidate
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex
from tests.support.architectures import files_of, save_timm
from tests.support.hub import HubServer
from tests.support.synthetic import TINY, dataset

# ---------------------------------------------------------------------- what a measurement promises


def predicted(means: Mapping[str, float], variances: Collection[float] | None = None) -> Prediction:
    """Return a prediction of uncorrelated candidates, each of a family of its own."""
    spread = np.array(list(variances) if variances is not None else [0.25] * len(means))

    def covariance(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        assert len(rows) <= 80, "too many candidates were looked at"
        return spread[rows][:, None] * (rows[:, None] == columns)

    values = np.array(list(means.values()))
    n = len(values)
    features = CheckpointFeatures(tuple(means), np.zeros((n, 1)), np.arange(n), np.zeros((n, 1)))
    posterior: Any = SimpleNamespace(covariance=covariance, candidates=features, away=np.zeros(n, dtype=bool))
    return Prediction(tuple(means), values, np.zeros(n), 1.0, noise=0.0, posterior=posterior)


def test_the_first_is_the_one_predicted_best() -> None:
    prediction = predicted({"a": 0.0, "b": 1.0, "c": 0.9}, [1.0, 0.01, 9.0])
    assert next_candidate(prediction, {}, {"a", "b", "c"}) == "b"
    assert next_candidate(prediction, {}, {"a", "c"}) == "c"
    assert next_candidate(prediction, {}, {"a", "c"}, known={"b"}) == "c"
    assert next_candidate(prediction, {}, {"not among them"}) is None


def test_a_doubtful_candidate_is_worth_more_than_a_known_one() -> None:
    prediction = predicted({"done": 1.0, "sure": 0.99, "doubtful": 0.8}, [1e-6, 1e-6, 1.0])
    assert next_candidate(prediction, {"done"}, {"sure", "doubtful"}) == "doubtful"
    far = predicted({"done": 1.0, "sure": 0.99, "doubtful": -9.0}, [1e-6, 0.01, 0.1])
    assert next_candidate(far, {"done"}, {"sure", "doubtful"}) == "sure"
    # Over the measured one both promise; over the probe, only the doubtful one can be better.
    prediction = predicted({"done": 0.0, "probe": 3.0, "sure": 1.0, "doubtful": 0.0}, [1e-6, 1e-6, 1e-4, 2.0])
    assert next_candidate(prediction, {"done"}, {"sure", "doubtful"}) == "sure"
    assert next_candidate(prediction, {"done"}, {"sure", "doubtful"}, known={"probe"}) == "doubtful"


def test_only_a_short_list_is_looked_at() -> None:
    many = {f"net{i}": -float(i) for i in range(1000)}
    assert next_candidate(predicted(many), {"net0"}, set(many) - {"net0"}) == "net1"


# ---------------------------------------------------------------------- when measuring stops

NETS = [f"net{i}" for i in range(1, 7)]


@pytest.fixture
def refine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Measurements, list[str]]]:
    """Measure some of six candidates, a worse one after the other; each takes ten seconds, and `broken` ones fail."""
    now = 100.0
    monkeypatch.setattr(refinement, "time", SimpleNamespace(monotonic=lambda: now))

    def run(k: int, broken: Collection[str] = (), **options: Any) -> tuple[Measurements, list[str]]:
        tried: list[str] = []

        def measure(name: str, task: Any, **_: Any) -> Score:
            nonlocal now
            tried.append(name)
            now += 10.0
            if name in broken:
                raise ProbeError(f"{name} is broken")
            return Score.of_share(0.5, 100)

        monkeypatch.setattr(refinement, "linear_probe", measure)
        params = pd.array([4.0, 300.0, None, 2.0, 1.0, 3.0], dtype="Float64")
        task: Any = None
        prediction = predicted({name: -float(i) for i, name in enumerate(NETS)})
        frame = pd.DataFrame({"hub_id": NETS, "params_m": params})
        return measure_promising(lambda _: prediction, frame, task, k, **options), tried

    return run


Refine = Callable[..., tuple[Measurements, list[str]]]


def test_as_many_as_were_asked_for(refine: Refine) -> None:
    found, tried = refine(3)
    assert tried == list(found.scores) == ["net1", "net2", "net3"]
    assert (found.failures, found.notes) == ({}, [])
    assert len(refine(20)[1]) == 6
    assert refine(2, known=["net1", "elsewhere"])[1] == ["net2", "net3"]
    assert refine(2, known=NETS)[1] == []


def test_failures_are_replaced_up_to_twice_as_many(refine: Refine) -> None:
    found, tried = refine(2, broken={"net1", "net3"})
    assert tried == ["net1", "net2", "net3", "net4"]
    assert found.failures == {name: f"{name} was not measured: {name} is broken" for name in ("net1", "net3")}
    found, tried = refine(2, broken=NETS)
    assert (len(tried), found.scores) == (4, {})


@pytest.mark.parametrize(
    ("k", "budget", "count", "note"),
    [  # At four bytes a parameter; candidates of unknown size fit into no limit.
        (4, Budget(max_bytes=4 * 8e6), 3, "no candidate of known size fits into what is left of 3.2e+07 bytes"),
        (3, Budget(max_bytes=4 * 7e6), 3, ""),  # 4 + 2 + 1 million: just enough
        (1, Budget(max_bytes=1), 0, "no candidate of known size fits into what is left of 1 bytes"),
        (6, Budget(max_seconds=25), 2, "20 s of 25 s spent"),  # a third would end later
        (3, Budget(max_seconds=30), 3, ""),
        (6, Budget(max_seconds=0.1), 1, "10 s of 0.1 s spent"),  # how long one takes is known after the first
    ],
)
def test_limits_of_bytes_and_seconds(refine: Refine, k: int, budget: Budget, count: int, note: str) -> None:
    found, tried = refine(k, budget=budget)
    expected = ["net1", "net4", "net5"] if budget.max_bytes else NETS
    assert tried == expected[:count]
    assert found.notes == ([f"stopped after {count} of {k} measurements: {note}"] if note else [])


def test_failed_downloads_count(refine: Refine) -> None:
    assert refine(4, broken={"net1"}, budget=Budget(max_bytes=4 * 6e6))[1] == ["net1", "net4"]


# ---------------------------------------------------------------------- with real networks on the loopback Hub

#: The four of the synthetic index that the loopback Hub holds, best first by their scores in it.
ON_HUB = ["org/best-unknown", "org/huge", "org/mid", "org/small"]


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
def select_on_hub(select: Callable[..., Ranking]) -> Callable[..., Ranking]:
    return partial(select, candidates=ON_HUB)


Select = Callable[..., Ranking]


def downloaded(hub: HubServer) -> set[str]:
    """Repositories whose weights were fetched."""
    found = [re.match(r"/([^/]+/[^/]+)/resolve/.*safetensors", r.path) for r in hub.requests if r.method == "GET"]
    return {match[1] for match in found if match}


def measured(ranking: Ranking) -> dict[str, float]:
    return {c.hub_id: c.measured for c in ranking if c.measured is not None}


def by_hand(task: Task, index: ZooIndex, probe: Probe, count: int) -> tuple[list[str], Ranking]:
    """The candidates that should be measured, in order, and the ranking that should come out."""
    frame = index.checkpoints[index.checkpoints["hub_id"].isin(ON_HUB)].reset_index(drop=True)
    recommender = Recommender(
        embed_task(task, probe), RankingMetric.from_index(index), Eligible(index, frame), "linear-probe"
    )
    scores: dict[str, Score] = {}
    for _ in range(count):
        name = next_candidate(recommender.predict(scores), scores, set(ON_HUB) - set(scores)) if scores else "org/huge"
        assert name is not None
        scores[name] = linear_probe(name, task)
    return list(scores), recommender.rank(scores, top_k=10)


def test_two_are_downloaded_measured_and_ranked_again(
    select_on_hub: Select, filled: HubServer, index: ZooIndex, probe: Probe
) -> None:
    task = Task.from_dataset(dataset(48))
    first = select_on_hub(task, protocol="linear-probe")
    assert not filled.requests  # the first stage downloads nothing
    refined = select_on_hub(task, protocol="linear-probe", refine=2)
    fetched = downloaded(filled)
    names, expected = by_hand(task, index, probe, 2)
    assert names[0] == first.best.hub_id == "org/huge"
    assert fetched == set(names)
    assert refined.candidates == expected.candidates
    assert measured(refined) == {name: linear_probe(name, task).value for name in names}

    def sd_of_logit(c: Candidate) -> float:
        return c.std / (c.score * (1 - c.score))

    before = {c.hub_id: c for c in first}
    for c in refined:
        assert sd_of_logit(c) <= sd_of_logit(before[c.hub_id]) + 1e-9
        assert c.residual == pytest.approx(c.score - c.prior)
    others = [c.score for c in refined[1:]]  # the first is of known size and licence
    assert others == sorted(others, reverse=True)
    assert refined.warnings == first.warnings
    assert refined.summary.startswith("2 candidates measured on the sample. Take ")
    assert refined.best.hub_id in refined.summary


def test_measured_accuracies_are_shown(select_on_hub: Select, filled: HubServer) -> None:
    refined = select_on_hub(dataset(48), refine=1)
    ((hub_id, value),) = measured(refined).items()
    shown = {c["hub_id"]: c["measured"] for c in json.loads(refined.to_json())["candidates"]}
    assert shown == {**dict.fromkeys(ON_HUB), hub_id: value}
    heading, *lines = repr(refined).split("the best:\n")[1].splitlines()
    assert re.sub(r"\s\s+", "|", heading) == "rank|checkpoint|accuracy|80 % interval|measured|params|licence"
    assert next(line for line in lines if hub_id in line).split()[4] == f"{100 * value:.1f}"
    assert ">measured</th>" in refined._repr_html_()
    assert f"<td>{100 * value:.1f}</td>" in refined._repr_html_()
    assert refined.to_pandas()["measured"].notna().sum() == 1


def test_the_probe_is_not_measured_again(select_on_hub: Select, filled: HubServer) -> None:
    refined = select_on_hub(dataset(48), candidates=[TINY, "org/small"], refine=2)
    assert downloaded(filled) == measured(refined).keys() == {"org/small"}
    assert refined.warnings == ()


def test_limits_of_the_second_stage(select_on_hub: Select, filled: HubServer) -> None:
    """org/mid has 25 million parameters, org/small 5; those of org/best-unknown are unknown."""
    refined = select_on_hub(dataset(48), refine=3, refine_bytes=4 * 31e6, top_k=1)
    assert downloaded(filled) == {"org/mid", "org/small"}
    assert len(refined) == 1
    (note,) = refined.warnings
    assert note.startswith("stopped after 2 of 3 measurements: ")
    refined = select_on_hub(dataset(48), refine=3, refine_seconds=1e-9)
    assert refined.warnings == ("stopped after 0 of 3 measurements: 0 s of 1e-09 s spent",)


def test_a_bad_measurement_moves_a_candidate_down(
    select_on_hub: Select, filled: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its features are made constant: no better than guessing."""
    import torch

    features = Probe.features

    def broken(self: Probe, batch: torch.Tensor) -> torch.Tensor:
        real = features(self, batch)
        return torch.ones_like(real) if self.name == "org/best-unknown" else real

    monkeypatch.setattr(Probe, "features", broken)
    refined, before = select_on_hub(dataset(48), refine=2), select_on_hub(dataset(48))
    assert measured(refined)["org/best-unknown"] < 0.5
    score, expected = (next(c.score for c in r if c.hub_id == "org/best-unknown") for r in (refined, before))
    assert score < expected  # fine-tuning follows frozen features in part
    assert "Before measuring" not in refined.summary  # it was not first, as nothing is known of its size


def not_finite(files: dict[str, bytes]) -> dict[str, bytes]:
    import torch
    from safetensors.torch import load, save

    state = load(files["model.safetensors"])
    return files | {"model.safetensors": save(state | {"conv1.0.weight": state["conv1.0.weight"] * torch.nan})}


def odd_preprocessing(files: dict[str, bytes]) -> dict[str, bytes]:
    config = json.loads(files["config.json"])
    config["pretrained_cfg"]["mean"] = "grey"
    return files | {"config.json": json.dumps(config).encode()}


@pytest.mark.parametrize(
    ("change", "fault", "reason"),
    [
        (None, {}, "No Hub repository 'org/best-unknown'"),
        (lambda files: files | {"model.safetensors": files["model.safetensors"][:999]}, {}, "cannot load 'org/best-"),
        (odd_preprocessing, {}, "timm cannot build the preprocessing .*'mean': 'grey'"),
        (not_finite, {}, "not finite"),
        (dict, {"status": 500}, "The Hub failed for 'org/best-unknown'|'org/best-unknown'.* cannot be reached"),
    ],
    ids=["missing", "cut", "preprocessing", "not finite", "failing server"],
)
@pytest.mark.usefixtures("retry_sleeps")
def test_the_next_is_measured_in_place_of_one_that_cannot_be(
    select_on_hub: Select,
    hub: HubServer,
    checkpoints: dict[str, dict[str, bytes]],
    change: Callable[[dict[str, bytes]], dict[str, bytes]] | None,
    fault: dict[str, Any],
    reason: str,
) -> None:
    for hub_id, files in checkpoints.items():
        if hub_id != "org/best-unknown":
            hub.create_model(hub_id, files)
        elif change is not None:
            hub.create_model(hub_id, change(files))
    if fault:
        hub.inject(pattern="best-unknown/resolve/.*safetensors", times=None, **fault)
    refined = select_on_hub(dataset(48), refine=2, top_k=4)
    assert len(measured(refined)) == 2
    assert measured(refined).keys() > {"org/huge"}
    assert "org/best-unknown" not in measured(refined)
    (warning,) = refined.warnings
    assert warning.startswith("org/best-unknown was not measured: ")
    assert re.search(reason, warning)
    assert "org/best-unknown" in {c.hub_id for c in refined}


def test_what_a_network_raises_does_not_end_the_run(
    select_on_hub: Select, filled: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    features = Probe.features

    def out_of_memory(self: Probe, batch: torch.Tensor) -> torch.Tensor:
        if self.name == "org/huge":
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        return features(self, batch)

    monkeypatch.setattr(Probe, "features", out_of_memory)
    refined = select_on_hub(dataset(48), refine=1)
    (warning,) = refined.warnings
    assert warning == (
        "org/huge was not measured: 'org/huge' fails on the images of 'dataset' (batch_size=4, device "
        "cpu): OutOfMemoryError: tried to allocate 20 GiB"
    )
    (name,) = measured(refined)
    assert name != "org/huge"
    if refined.best.hub_id == "org/huge":
        assert f"could not be measured (see the warnings). The best of those measured is {name}: " in refined.summary


def test_when_none_can_be_measured_the_prediction_stands(select_on_hub: Select, hub: HubServer) -> None:
    task = Task.from_dataset(dataset(48))
    first, refined = select_on_hub(task), select_on_hub(task, refine=2)
    assert refined.candidates == first.candidates
    assert refined.summary == f"No candidate could be measured. {first.summary}"
    assert len(refined.warnings) == len(ON_HUB)
