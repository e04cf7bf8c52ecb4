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
import pytest
from architectures import files_of, save_timm
from datasets import ClassLabel, Features, List, Value
from hub import HubServer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import average_precision_score
from synthetic import TINY, pictures, tiny_probe, zoo

from hf_task2vec import recommendation
from hf_task2vec.average_precision import LabelScores, average_precision
from hf_task2vec.embed import embed_task
from hf_task2vec.errors import ColumnError, LabelError
from hf_task2vec.head import stratified_folds
from hf_task2vec.labels import read_labels, split_joined
from hf_task2vec.prediction import Measured
from hf_task2vec.probe import Probe
from hf_task2vec.ranking import Ranking
from hf_task2vec.selection import select_backbone
from hf_task2vec.task import Task
from hf_task2vec.transfer import MultiLabelTransfer, measure, measure_features, measure_label_features
from hf_task2vec.transferability import Predictions, knn_label_scores, ridge_label_scores, ridge_predictions
from hf_task2vec.zoo import ZooIndex

ABC = ["a", "b", "c"]
#: The selection and the ranking name the score once the change to them is in.
names_the_score = pytest.mark.skipif(
    not hasattr(Ranking, "score_name"), reason="this ranking does not yet say that its score is a mAP"
)


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


@pytest.mark.parametrize("name", ["tags", "attributes"])
def test_the_only_column_of_lists_is_found(name: str) -> None:
    assert Task.from_dataset(data([[ABC[c] for c in one] for one in sets()], List(Value("string")), name)).num_classes


def test_captions_are_no_labels() -> None:
    captions = [[f"picture {i}", f"the {i}th picture"] for i in range(12)]
    with pytest.raises(ColumnError, match="no label column"):
        Task.from_dataset(data(captions, List(Value("string")), "captions"))


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


def test_flag_columns_are_ambiguous_and_the_message_says_how_to_join_them() -> None:
    flags = hot(sets()).astype(bool)
    dataset = data(flags[:, 0].tolist(), Value("bool"), "a")
    for column, kind in ((1, bool), (2, int)):
        dataset = dataset.add_column(ABC[column], flags[:, column].astype(kind).tolist())
    with pytest.raises(ColumnError, match="several label columns: a, b, c; pass label_column=… to choose one") as error:
        Task.from_dataset(dataset)
    assert "For all 3 flags as several labels an image" in str(error.value)
    code = str(error.value).partition("of lists: ")[2].partition(" and label_column")[0]
    names: dict[str, Any] = {"dataset": dataset}
    exec(code, names)
    task = Task.from_dataset(names["dataset"], label_column="labels", max_samples=None)
    assert task.label_names == tuple(ABC)
    assert np.array_equal(task.labels, flags[task.indices])
    assert Task.from_dataset(dataset, label_column="b").label_kind == "single_label"


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
    import pyarrow as pa

    assert split_joined(pa.array(values * 3, pa.string())) is None


def test_text_that_looks_like_lists_is_refused() -> None:
    labels = [str([ABC[c] for c in one]) for one in sets()]
    with pytest.raises(LabelError, match=r"text that looks like lists \(\"\['a'\]\"\).*metadata.jsonl"):
        Task.from_dataset(data(labels, Value("string")))


def test_one_label_only_and_empty_sets() -> None:
    task = Task.from_dataset(data([["x"], [], []] * 4, List(Value("string"))), max_samples=6)
    assert task.label_names == ("x",)
    assert task.labels.sum() == 3, "images without the label count as a class of their own"


def test_lists_of_exactly_one_label_are_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    Task.from_dataset(data([["x"], ["y"]] * 4, List(Value("string"))))
    assert "every row has a list of exactly one label" in caplog.text


# ---------------------------------------------------------------------- sampling and folds


def test_the_sample_is_balanced_where_the_data_are_not() -> None:
    rng = np.random.default_rng(0)
    labels = [np.flatnonzero(rng.random(4) < [0.7, 0.3, 0.1, 0.03]).tolist() for _ in range(600)]
    rows = read_labels(_column(labels), List(Value("int64")))
    from hf_task2vec.sampling import BalancedSampler

    sampler = BalancedSampler(*rows.sampling_pairs(), np.random.default_rng(0))
    drawn = [draw[0] for _ in range(80) if (draw := sampler.draw()) is not None]
    balanced, random = rows.of(np.array(drawn)).sum(axis=0), 80 * rows.counts / 600
    assert balanced[3] == rows.counts[3] > 2 * random[3], "all there are of the rare label"
    assert np.ptp(balanced) < 0.5 * np.ptp(random)


def _column(values: list[Any]) -> Any:
    import pyarrow as pa

    return pa.chunked_array([pa.array(values, pa.list_(pa.int64()))])


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
    assert uneven["stratified"] < 0.5 * uneven["random"]


# ---------------------------------------------------------------------- average precision


@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_average_precision_is_that_of_scikit_learn(seed: int, n: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    present, scores = rng.random(n) < 0.4, np.round(rng.normal(size=n), decimals)
    found = average_precision(present, scores)
    if present.any() and not present.all():
        assert found == pytest.approx(average_precision_score(present, scores), abs=1e-12)
    else:
        assert np.isnan(found)


def test_the_mean_leaves_out_labels_that_do_not_vary() -> None:
    rng = np.random.default_rng(0)
    present = np.stack([rng.random(30) < 0.3, np.zeros(30, bool), np.ones(30, bool), rng.random(30) < 0.5], axis=1)
    scores = rng.normal(size=(30, 4))
    result = LabelScores(present, scores)
    assert np.isnan(result.average_precisions[[1, 2]]).all()
    expected = average_precision_score(present[:, [0, 3]], scores[:, [0, 3]], average="macro")
    assert result.mean_average_precision == pytest.approx(expected, abs=1e-12)


def test_standard_error_is_the_jackknife_by_brute_force() -> None:
    rng = np.random.default_rng(1)
    present = np.stack([rng.random(40) < 0.3, np.arange(40) == 7], axis=1)  # leaving 7 out leaves one label
    scores = np.round(rng.normal(size=(40, 2)) + present, 1)
    without = []
    for i in range(40):
        kept = np.arange(40) != i
        without.append(LabelScores(present[kept], scores[kept]).mean_average_precision)
    spread = np.array(without) - np.mean(without)
    assert LabelScores(present, scores).std_error == pytest.approx(
        float(np.sqrt(39 / 40 * np.sum(spread**2))), rel=1e-9
    )


def test_standard_error_is_about_the_spread_over_samples() -> None:
    values, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        present = rng.random((120, 4)) < 0.3
        result = LabelScores(present, rng.normal(size=(120, 4)) + 1.5 * present)
        values.append(result.mean_average_precision)
        errors.append(result.std_error)
    assert 0.75 < np.mean(errors) / np.std(values) < 1.5
    perfect = LabelScores(present, present.astype(float))
    assert perfect.mean_average_precision == 1.0
    assert 0 < perfect.std_error < 0.02


def test_closed_form_is_leave_one_out_by_brute_force() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(25, 6)), (rng.random((25, 3)) < 0.4).astype(float)
    penalty = 0.3
    centred = x - x.mean(axis=0)
    scale = np.sum(centred**2) / min(24, 6)
    expected = np.empty((25, 3))
    for i in range(25):
        kept = np.arange(25) != i
        z = centred[kept] - 0.0  # centred on all, with an intercept of its own
        design = np.concatenate([z, np.ones((24, 1))], axis=1)
        ridge = np.diag([penalty * scale] * 6 + [0.0])
        weights = np.linalg.solve(design.T @ design + ridge, design.T @ y[kept])
        expected[i] = np.append(centred[i], 1.0) @ weights
    corrected = expected + (y - y.mean(axis=0)) / 24
    assert np.allclose(ridge_predictions(x, y, (penalty,)), corrected, atol=1e-9)


def test_features_that_tell_nothing_give_the_average_precision_of_chance() -> None:
    found: dict[str, list[float]] = {"ridge": [], "knn": [], "chance": []}
    for seed in range(15):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(100, 200)), (rng.random((100, 4)) < 0.25).astype(np.int64)
        found["ridge"].append(ridge_label_scores(x, y).mean_average_precision)
        found["knn"].append(knn_label_scores(x, y).mean_average_precision)
        found["chance"].append(LabelScores(y > 0, rng.normal(size=(100, 4))).mean_average_precision)
    assert np.mean(found["ridge"]) == pytest.approx(np.mean(found["chance"]), abs=0.03)
    assert np.mean(found["knn"]) == pytest.approx(np.mean(found["chance"]), abs=0.03)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize("n", [20, 1000])
def test_a_score_with_an_error_is_worth_as_many_images(share: float, n: int) -> None:
    right = Predictions(np.arange(n) < share * n)
    assert Measured.with_std_error(right.accuracy, right.std_error) == Measured(right.accuracy, n)
    assert Measured.with_std_error(0.5, 10.0).n == 1


# ---------------------------------------------------------------------- measuring


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.from_dataset(data(sets(48), List(ClassLabel(names=ABC))), max_samples=None)


@pytest.fixture(scope="module")
def probe() -> Probe:
    return tiny_probe()


def test_measure(task: Task, probe: Probe) -> None:
    result = measure(probe, task)
    assert isinstance(result, MultiLabelTransfer)
    assert result.linear.scores.shape == result.knn.scores.shape == (48, 3)
    assert 0.75 < result.linear.mean_average_precision <= 1.0
    assert result.measured.accuracy == result.linear.mean_average_precision
    rng = np.random.default_rng(0)
    shuffled = measure_label_features(rng.normal(size=(48, 5)).astype(np.float32), task.labels)
    assert shuffled.linear.mean_average_precision < 0.7
    with pytest.raises(LabelError, match=r"labels of shape \(48, 3\) are several an image; measure_label_features"):
        measure_features(np.zeros((48, 2), np.float32), task.labels)


def test_labels_that_do_not_vary_cannot_be_measured(probe: Probe) -> None:
    task = Task.from_dataset(data(sets(24), List(ClassLabel(names=ABC))), max_samples=None)
    alike = task.subset([i for i in range(24) if task.labels[i].tolist() == task.labels[0].tolist()])
    with pytest.raises(LabelError, match=r"every label is carried by all or by none.*draw more images"):
        measure(probe, alike)


def test_descriptors_hold_what_measure_says_of_the_probe(task: Task, probe: Probe) -> None:
    facts = embed_task(task, probe).descriptors
    result = measure(probe, task).linear
    assert facts["probe_map"] == pytest.approx(result.mean_average_precision, abs=1e-3)
    assert Measured.by_probe(facts).n == pytest.approx(Measured.with_std_error(0.9, result.std_error).n, rel=2.0)
    assert Measured.by_probe({"probe_accuracy": 0.7, "n_samples": 30.0}) == Measured(0.7, 30)


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


@names_the_score
def test_the_score_is_a_map_whose_level_is_the_probes_own(select: Callable[..., Ranking], task: Task) -> None:
    ranking = select()
    assert ranking.score_name == ranking.provenance["score"] == "mAP"
    assert "predicted linear-probe mAP" in ranking.summary
    assert "predicted mAP" in ranking.explain().text
    assert "mAP" in repr(ranking).splitlines()[1].split()
    assert any("the level of the mAP from the probe's own" in warning for warning in ranking.warnings)
    facts = ranking.provenance["descriptors"]
    own = next(candidate for candidate in ranking if candidate.hub_id == TINY)
    assert own.score == pytest.approx(facts["probe_map"], abs=2 * facts["probe_map_std_error"])
    assert json.loads(ranking.to_json())["provenance"]["score"] == "mAP"


@names_the_score
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
        assert found == pytest.approx(measure(hub_id, task).measured.accuracy)
    assert "2 candidates measured on the sample." in ranking.summary
    assert "mAP" in ranking.summary
    assert "accuracy" not in ranking.summary


def test_a_measured_map_moves_the_level_not_the_order(index: ZooIndex, probe: Probe, task: Task) -> None:
    """The index holds accuracies: what they say of differences stays, whatever the level of the mAP."""
    from hf_task2vec.metric import RankingMetric

    embedding, metric = embed_task(task, probe), RankingMetric.from_index(index)
    frame = index.checkpoints
    found = [
        recommendation.predict(embedding, index, frame, metric, {"org/mid": Measured.with_std_error(level, 0.03)})
        for level in (0.3, 0.6)
    ]
    assert found[0].level < found[1].level - 0.5
    for one, other in combinations(range(len(frame)), 2):
        gap = [prediction.mean[one] - prediction.mean[other] for prediction in found]
        if TINY not in (frame["hub_id"][one], frame["hub_id"][other]):
            assert gap[0] == pytest.approx(gap[1], abs=0.6)


# ---------------------------------------------------------------------- the page about it


def test_python_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "label-types.md"
    names: dict[str, Any] = {}
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", page.read_text(encoding="utf-8"))
    for number, code in enumerate(blocks):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)
    assert 0.5 < names["result"].mean_average_precision <= 1.0
    assert "mAP " in capsys.readouterr().out
