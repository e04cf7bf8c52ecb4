"""Several labels an image, from the label column to a refined ranking: read, sampled, embedded, measured, ranked."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from datasets import ClassLabel, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hf_task2vec.embedding.embed import embed_task
from hf_task2vec.errors import ColumnError, LabelError
from hf_task2vec.fisher.head import stratified_folds
from hf_task2vec.probes.probe import Probe
from hf_task2vec.probes.scores import Score
from hf_task2vec.probes.transfer import linear_probe, score_features
from hf_task2vec.selection import recommendation
from hf_task2vec.selection.limits import Eligible
from hf_task2vec.selection.ranking import Ranking
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.tasks.labels import read_labels, split_joined
from hf_task2vec.tasks.sampling import Draw
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex
from tests.support.architectures import files_of, save_timm
from tests.support.hub import HubServer
from tests.support.synthetic import TINY, pictures, tiny_probe, zoo

ABC = ["a", "b", "c"]


def sets(count: int = 24) -> list[list[int]]:
    """Label sets of `pictures` with the same number: the colour, and for every other picture one class more."""
    return [[i % 3, (i + 1) % 3][: 1 + i % 2] for i in range(count)]


def data(labels: list[Any], kind: Any, column: str = "labels") -> datasets.Dataset:
    cells = [Image.fromarray(picture) for picture in pictures(len(labels))]
    features = Features({"image": datasets.Image(), column: kind})
    return datasets.Dataset.from_dict({"image": cells, column: labels}, features=features)


def hot(found: list[list[int]], count: int = 3) -> np.ndarray:
    return np.array([[int(c in one) for c in range(count)] for one in found])


# ---------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        (sets(), List(ClassLabel(names=ABC)), ABC),
        ([[ABC[c] for c in one] for one in sets()], List(Value("string")), ABC),
        (hot(sets()).tolist(), List(Value("int8")), ["0", "1", "2"]),
        (hot(sets()).astype(float).tolist(), List(Value("float32")), ["0", "1", "2"]),
        (hot(sets()).astype(float).tolist(), List(Value("float64"), length=3), ["0", "1", "2"]),
        (hot(sets()).astype(bool).tolist(), List(Value("bool"), length=3), ["0", "1", "2"]),
        (["|".join(ABC[c] for c in one) for one in sets()], Value("string"), ABC),
        ([", ".join(ABC[c] for c in one) for one in sets()], Value("string"), ABC),
    ],
)
def test_every_way_to_write_labels_down_gives_the_same_task(labels: list[Any], kind: Any, names: list[str]) -> None:
    task = Task.from_dataset(data(labels, kind), max_samples=None)
    assert (task.label_kind, task.label_column) == ("multi_label", "labels")
    assert list(task.label_names) == names
    assert np.array_equal(task.labels, hot([sets()[row] for row in task.indices]))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # `datasets` leaves metadata.csv to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_folder_with_metadata(tmp_path: Path) -> None:
    lines = []
    for i, (picture, one) in enumerate(zip(pictures(24), sets(), strict=True)):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "labels": [ABC[c] for c in one]}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    rows = [f"{i}.png,{';'.join(ABC[c] for c in one)}" for i, one in enumerate(sets())]
    in_lists = Task.from_dataset(tmp_path, max_samples=None)
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,labels", *rows]))
    joined = Task.from_dataset(tmp_path, max_samples=None)
    streamed = Task.from_dataset(tmp_path, max_samples=None, streaming=True)
    assert in_lists.label_kind == "multi_label"
    assert in_lists.label_names == joined.label_names == tuple(ABC)
    assert in_lists.labels.sum() == joined.labels.sum() == streamed.labels.sum() == hot(sets()).sum()
    gc.collect()


def test_columns_of_flags_are_several_labels_an_image() -> None:
    flags = hot(sets()).astype(bool)
    dataset = data(flags[:, 0].tolist(), Value("bool"), "a")
    for column, kind in ((1, bool), (2, int)):
        dataset = dataset.add_column(ABC[column], flags[:, column].astype(kind).tolist())
    for label_column in (None, "a,b,c"):
        task = Task.from_dataset(dataset, max_samples=None, label_column=label_column)
        assert (task.label_names, task.label_column) == (tuple(ABC), "a,b,c")
        assert np.array_equal(task.labels, flags[task.indices])
        assert "3 columns of flags are read as several labels" in task.reading.warnings[0]
    assert Task.from_dataset(dataset, label_column="b").label_kind == "single_label"
    with pytest.raises(
        ColumnError, match=r"several label columns: a, b, c, d; .* all 3 flags .*label_column=\"a,b,c\""
    ):
        Task.from_dataset(dataset.add_column("d", ["x", "y"] * (len(dataset) // 2)))


def test_flags_with_marks_of_uncertainty_are_refused() -> None:
    for mark in (-1, None):
        labels = [[1, 0, 0], [0, 1, mark], [0, 0, 1], [1, 1, 0]]
        for kind in ("int64", "float32"):
            with pytest.raises(LabelError, match=r"lists of 3 flags hold 1 nulls or -1 beside 0 and 1.*counts them as"):
                Task.from_dataset(data(labels, List(Value(kind))))


@pytest.mark.parametrize(
    "values",
    [
        ["tench, Tinca tinca", "goldfish, Carassius auratus", "shark"],
        ["tomato, healthy", "tomato, rust", "potato, healthy", "potato, rust", "corn, healthy", "corn, rust"],
        ["a|b", "c|d"],
        ["a", "b", "c"],
        ["rock;paper"],
        [],
    ],
)
def test_names_of_classes_are_not_split(values: list[str]) -> None:
    assert split_joined(pa.array(values * 3, pa.string())) is None


def test_text_that_looks_like_lists_is_refused() -> None:
    labels = [str([ABC[c] for c in one]) for one in sets()]
    with pytest.raises(LabelError, match=r"text that looks like lists \(\"\['a'\]\"\).*metadata.jsonl"):
        Task.from_dataset(data(labels, Value("string")))


def test_one_label_only_and_empty_sets() -> None:
    task = Task.from_dataset(data([["x"], [], []] * 4, List(Value("string"))), max_samples=6)
    assert task.label_names == ("x",)
    assert task.labels.sum() == 3, "images without the label count as a class of their own"


# ---------------------------------------------------------------------- sampling and folds


def test_the_sample_is_balanced_where_the_data_are_not() -> None:
    rng = np.random.default_rng(0)
    labels = [np.flatnonzero(rng.random(4) < [0.7, 0.3, 0.1, 0.03]).tolist() for _ in range(600)]
    rows = read_labels(pa.chunked_array([pa.array(labels, pa.list_(pa.int64()))]), List(Value("int64")))
    drawn = Draw(*rows.sampling_pairs(), 80, seed=0).rows
    balanced, random = rows.of(np.array(drawn)).sum(axis=0), 80 * rows.counts / 600
    assert balanced[3] == rows.counts[3] > 2 * random[3], "all there are of the rare label"
    assert np.ptp(balanced) < 0.5 * np.ptp(random)


@given(st.integers(0, 1000), st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_folds_spread_every_label_and_every_example(seed: int, folds: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random((60, 5)) < rng.random(5)).astype(np.uint8)
    fold_of = stratified_folds(labels, folds, seed)
    assert set(fold_of) <= set(range(folds))
    assert np.ptp(np.bincount(fold_of, minlength=folds)) <= 60 // folds
    assert np.array_equal(fold_of, stratified_folds(labels, folds, seed))


def test_folds_are_more_even_than_random_ones() -> None:
    uneven = {"stratified": 0.0, "random": 0.0}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        labels = (rng.random((100, 8)) < 0.15).astype(np.uint8)
        for name, fold_of in (("stratified", stratified_folds(labels, 5, seed)), ("random", rng.permutation(100) % 5)):
            counts = np.array([labels[fold_of == fold].sum(axis=0) for fold in range(5)])
            uneven[name] += float(counts.std(axis=0).mean())
    assert uneven["stratified"] < 0.75 * uneven["random"]


# ---------------------------------------------------------------------- measuring


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.from_dataset(data(sets(48), List(ClassLabel(names=ABC))), max_samples=None)


@pytest.fixture(scope="module")
def probe() -> Probe:
    return tiny_probe()


def test_measure(task: Task, probe: Probe) -> None:
    found = linear_probe(probe, task)
    assert found.n == 48
    assert 0.75 < found.value <= 1.0
    noise = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32)
    assert score_features(noise, task.labels).value < 0.7


def test_labels_that_do_not_vary_cannot_be_measured(probe: Probe) -> None:
    task = Task.from_dataset(data(sets(24), List(ClassLabel(names=ABC))), max_samples=None)
    alike = task.subset([i for i in range(24) if task.labels[i].tolist() == task.labels[0].tolist()])
    with pytest.raises(LabelError, match=r"every label is carried by all or by none.*draw more images"):
        linear_probe(probe, alike)


def test_descriptors_hold_what_measure_says_of_the_probe(task: Task, probe: Probe) -> None:
    facts = embed_task(task, probe).descriptors
    found, kept = linear_probe(probe, task), recommendation.probe_score(facts)
    assert (kept.value, kept.std_error) == (facts["probe_map"], facts["probe_map_std_error"])
    assert kept.value == pytest.approx(found.value, abs=1e-3)
    assert kept.std_error == pytest.approx(found.std_error, rel=0.1)
    assert recommendation.probe_score({"linear_probe_accuracy": 0.7, "n_samples": 30.0}) == Score.of_share(0.7, 30)


# ---------------------------------------------------------------------- ranking


ON_HUB = ["org/huge", "org/mid", "org/small"]


@pytest.fixture(scope="module")
def index(probe: Probe, task: Task) -> ZooIndex:
    return zoo({"twin": embed_task(task, probe)}, weights_hash=probe.weights_hash)


@pytest.fixture
def select(
    index: ZooIndex, probe: Probe, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ranking]:
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(tmp_path / "cache"))
    return partial(select_backbone, task, index=index, probe=probe)


def test_the_score_is_a_map_whose_level_is_the_probes_own(select: Callable[..., Ranking], task: Task) -> None:
    ranking = select(protocol="linear-probe")
    assert ranking.score_name == ranking.provenance["score"] == "mAP"
    assert "predicted mAP of a linear probe" in ranking.summary
    assert "predicted mAP" in ranking.explain().text
    assert "mAP" in repr(ranking).splitlines()[2].split()
    assert any("the level of the mAP from the probe's own" in warning for warning in ranking.warnings)
    facts = ranking.provenance["descriptors"]
    own = next(candidate for candidate in ranking if candidate.hub_id == TINY)
    assert own.score == pytest.approx(facts["probe_map"], abs=2 * facts["probe_map_std_error"])
    assert json.loads(ranking.to_json())["provenance"]["score"] == "mAP"


def test_one_label_an_image_is_ranked_by_accuracy(index: ZooIndex, probe: Probe) -> None:
    one = Task.from_dataset(data([i % 3 for i in range(24)], ClassLabel(names=ABC), "label"))
    assert select_backbone(one, index=index, probe=probe, cache=False).score_name == "accuracy"


def test_refine_measures_map(select: Callable[..., Ranking], hub: HubServer, tmp_path: Path, task: Task) -> None:
    import torch

    with torch.random.fork_rng():
        for seed, hub_id in enumerate(ON_HUB):
            torch.manual_seed(seed)
            save_timm(tmp_path / hub_id)
            hub.create_model(hub_id, files_of(tmp_path / hub_id))
    ranking = select(candidates=ON_HUB, refine=2)
    measured = {c.hub_id: c.measured for c in ranking if c.measured is not None}
    assert len(measured) == 2
    for hub_id, found in measured.items():
        assert found == pytest.approx(linear_probe(hub_id, task).value)
    assert "2 candidates measured on the sample." in ranking.summary
    assert "mAP" in ranking.summary
    assert "accuracy" not in ranking.summary


def test_a_measured_map_moves_the_level_not_the_order(index: ZooIndex, probe: Probe, task: Task) -> None:
    """The index holds accuracies: what they say of differences stays, whatever the level of the mAP."""
    from hf_task2vec.metric.ranking_metric import RankingMetric

    embedding, metric = embed_task(task, probe), RankingMetric.from_index(index)
    frame = index.checkpoints
    found = [
        recommendation.Recommender(embedding, metric, Eligible(index, frame), "linear-probe").predict(
            {"org/mid": Score(level, 0.03, 48)}
        )
        for level in (0.3, 0.6)
    ]
    assert found[0].level < found[1].level - 0.5
    for one, other in combinations(range(len(frame)), 2):
        gap = [prediction.mean[one] - prediction.mean[other] for prediction in found]
        if TINY not in (frame["hub_id"][one], frame["hub_id"][other]):
            assert gap[0] == pytest.approx(gap[1], abs=0.6)


# ---------------------------------------------------------------------- the page about it


def test_python_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "label-types.md"
    names: dict[str, Any] = {}
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", page.read_text(encoding="utf-8"))
    for number, code in enumerate(blocks):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)
    assert 0.5 < names["result"].value <= 1.0
    assert "mAP " in capsys.readouterr().out
