"""Building an index: every pair measured once, whatever happens in between."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from hf_task2vec.errors import HubError, ProbeError, ProbeMismatchError, TaskError, ZooIndexError
from hf_task2vec.evidence.build import BuildReport, Checkpoint, TaskSpec, build_index, plan_cells, run_cells
from hf_task2vec.evidence.cells import CellStore
from hf_task2vec.evidence.inputs import load_probe_of, pinned_checkpoint, pinned_task
from hf_task2vec.evidence.rows import family_of
from hf_task2vec.probes.probe import Probe
from hf_task2vec.probes.transfer import linear_probe
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex
from tests.support.architectures import files_of, save_timm
from tests.support.hub import HubServer
from tests.support.pictures import TEST, TRAIN, parquet
from tests.support.synthetic import as_dataset, dataset, pictures


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
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


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was loaded: checkpoints by name, datasets as ``dataset:<name>``."""
    found: list[str] = []
    from_pretrained, from_dataset = Probe.from_pretrained, Task.from_dataset

    def load(checkpoint: Any, **options: Any) -> Probe:
        found.append(Path(str(checkpoint)).name)
        return from_pretrained(checkpoint, **options)

    def draw(source: Any, **options: Any) -> Task:
        found.append(f"dataset:{Path(str(source)).name}")
        return from_dataset(source, **options)

    monkeypatch.setattr(Probe, "from_pretrained", load)
    monkeypatch.setattr(Task, "from_dataset", draw)
    return found


def tasks_of(world: Path) -> list[str]:
    return [str(world / "data" / f"task{i}") for i in range(2)]


def nets_of(world: Path, count: int = 3) -> list[str]:
    return [str(world / "nets" / f"net{i}") for i in range(count)]


def build(out: Path, world: Path, **options: Any) -> BuildReport:
    given = {"tasks": tasks_of(world), "checkpoints": nets_of(world), "embed": False, "device": "cpu", **options}
    return build_index(out, **given)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(report: BuildReport) -> dict[tuple[str, str], dict[str, str]]:
    """The report of the cells, by task and checkpoint."""
    with report.cells_file.open(encoding="utf-8", newline="") as handle:
        return {(row["task"], row["checkpoint"]): row for row in csv.DictReader(handle)}


def one_net(world: Path, load: Any, name: str = "local:odd") -> Checkpoint:
    return Checkpoint(name, {"test": name}, load, {"library": "timm", "architecture": "test_resnet"})


# ---------------------------------------------------------------------- what is measured


def test_every_pair_is_measured_on_both_splits(world: Path, tmp_path: Path) -> None:
    report = build(tmp_path / "out", world)
    assert (report.done, report.failed, report.failures) == (6, 0, ())
    assert dict(report.counts) == {"checkpoints": 3, "tasks": 2, "scores": 6, "sources": 1}
    row = table(report)["task0", "local:net1"]
    assert (row["status"], row["n"], row["n_train"], row["n_test"]) == ("done", "45", "30", "15")
    assert all(float(row[name]) >= 0 for name in ("load", "draw", "extract", "score"))
    # Leave-one-out over both splits is what `linear_probe` gives on a task of all these images.
    both = datasets.concatenate_datasets([datasets.load_from_disk(tasks_of(world)[0])[s] for s in ("train", "test")])
    whole = linear_probe(nets_of(world)[1], Task.from_dataset(both, max_samples=None), device="cpu")
    assert float(row["linear"]) == pytest.approx(whole.value)
    assert float(row["linear_se"]) == pytest.approx(whole.std_error)

    index = ZooIndex.load(tmp_path / "out")
    assert index.validate() == []
    score = index.scores.set_index(["task", "checkpoint"]).loc["task0", "local:net1"]
    assert (score["split"], score["n_train"], score["n_test"]) == ("train-test", 44, 45)
    assert score["score"] == pytest.approx(whole.value, abs=1e-6)
    net = index.checkpoints.set_index("hub_id").loc["local:net1"]
    facts = [net[name] for name in ("library", "architecture", "family", "input_px")]
    assert facts == ["timm", "test_resnet", "resnet", 64]
    assert net["params_m"] == pytest.approx(
        sum(p.numel() for p in Probe.from_pretrained(nets_of(world)[1]).module.parameters()) / 1e6
    )
    assert net["license"] is None
    assert list(index.tasks["n_images"]) == [45, 45]


def test_what_a_cell_keeps(world: Path, tmp_path: Path) -> None:
    """Which images were classified rightly, and the features where they are wanted; classes are matched by name."""

    def named(names: list[str], seed: int) -> datasets.Dataset:
        data = dataset(24, classes=len(names), seed=seed)
        texts = [names[label] for label in data["label"]]
        return data.remove_columns("label").add_column("label", texts)

    parts = {"train": named(["red", "blue", "green"], 0), "test": named(["green", "red"], 1)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "named")
    task, net = pinned_task(TaskSpec(dataset=str(tmp_path / "named"))), pinned_checkpoint(nets_of(world)[0])
    cells = plan_cells([task], [net], {"max_samples": None, "seed": 0, "keep_features": True})
    store = CellStore(tmp_path / "cells")
    run_cells(cells, store, {"device": "cpu"})
    document, kept = store.document(cells[0]), load_file(store.payload_path(cells[0]))
    assert document is not None
    assert kept["features"].shape == (48, document["measurement"]["dim"])
    right = np.unpackbits(kept["correct"], count=48)
    assert right.mean() == pytest.approx(document["measurement"]["linear"])
    drawn = [Task.from_dataset(tmp_path / "named", split=split, max_samples=None) for split in ("train", "test")]
    texts = [np.array(part.label_names)[part.labels] for part in drawn]
    np.testing.assert_array_equal(np.array(drawn[0].label_names)[kept["labels"]], np.concatenate(texts))


def test_one_split_is_judged_by_leave_one_out_alone(world: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", world, tasks=["sklearn:digits"], checkpoints=nets_of(world, 2), max_samples=60)
    scores = ZooIndex.load(tmp_path / "out").scores
    assert set(scores["protocol"]) == {"linear_probe_loo"}
    assert set(scores["split"]) == {"train"}
    assert list(scores["n_test"]) == [60, 60]


def test_a_test_split_without_labels_gives_way_to_the_next(world: Path, tmp_path: Path) -> None:
    hidden = as_dataset(pictures(9), [-1] * 9, 3)
    parts = {"train": dataset(24), "test": hidden, "validation": dataset(12, seed=5)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "hidden")
    build(tmp_path / "out", world, tasks=[str(tmp_path / "hidden")], checkpoints=nets_of(world, 1))
    assert set(ZooIndex.load(tmp_path / "out").scores["split"]) == {"train-validation"}


# ---------------------------------------------------------------------- once and no more


def test_a_second_start_repeats_nothing(world: Path, tmp_path: Path, loads: list[str]) -> None:
    build(tmp_path / "out", world)
    # A dataset is drawn once, and a checkpoint loaded once, for all its cells.
    assert sorted(name for name in loads if not name.startswith("dataset:")) == ["net0", "net1", "net2"]
    before = files(tmp_path / "out")
    loads.clear()
    report = build(tmp_path / "out", world)
    assert loads == []
    assert report.done == 6
    assert files(tmp_path / "out") == before


def test_only_what_is_new_is_measured(world: Path, tmp_path: Path, loads: list[str]) -> None:
    build(tmp_path / "out", world, checkpoints=nets_of(world, 2))
    loads.clear()
    build(tmp_path / "out", world)
    assert [name for name in loads if not name.startswith("dataset:")] == ["net2"]
    build(tmp_path / "other", world, cache=tmp_path / "fresh")
    assert files(tmp_path / "other") == files(tmp_path / "out")


def test_changed_weights_and_images_are_measured_again(world: Path, tmp_path: Path, loads: list[str]) -> None:
    shutil.copytree(world / "nets" / "net0", tmp_path / "net0")
    datasets.DatasetDict(train=dataset(30)).save_to_disk(tmp_path / "task0")
    given: dict[str, Any] = {"tasks": [str(tmp_path / "task0")], "checkpoints": [str(tmp_path / "net0")]}
    build(tmp_path / "out", world, **given)
    shutil.copyfile(world / "nets" / "net1" / "model.safetensors", tmp_path / "net0" / "model.safetensors")
    loads.clear()
    build(tmp_path / "out", world, **given)
    assert "net0" in loads
    shutil.rmtree(tmp_path / "task0")
    datasets.DatasetDict(train=dataset(30, seed=9)).save_to_disk(tmp_path / "task0")
    loads.clear()
    build(tmp_path / "out", world, **given)
    assert "net0" in loads
    loads.clear()
    build(tmp_path / "out", world, **given, seed=1)
    assert "net0" in loads


def test_killed_at_any_moment(world: Path, tmp_path: Path, loads: list[str]) -> None:
    code = (
        "import sys; from hf_task2vec.evidence.build import build_index;"
        "build_index(sys.argv[1], sys.argv[3:5], sys.argv[5:], cache=sys.argv[2], embed=False, device='cpu')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "cells")]
    process = subprocess.Popen([*command, *tasks_of(world), *nets_of(world)])
    finished: list[Path] = []
    deadline = time.monotonic() + 240
    while not finished and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
        finished = list((tmp_path / "cells").glob("cells/*/*.json"))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it came to its end before it could be killed"
    done = {json.loads(path.read_bytes())["key"] for path in (tmp_path / "cells").glob("cells/*/*.json")}
    assert 1 <= len(done) < 6
    assert not (tmp_path / "out").exists()

    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("cells/*/*.json")}
    assert build(tmp_path / "out", world, cache=tmp_path / "cells").done == 6
    assert {path: path.stat().st_mtime_ns for path in times} == times  # not measured again
    build(tmp_path / "undisturbed", world, cache=tmp_path / "others")
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


def test_an_unreadable_document_is_measured_again(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given: dict[str, Any] = {
        "tasks": tasks_of(world)[:1],
        "checkpoints": nets_of(world, 1),
        "cache": tmp_path / "cells",
    }
    build(tmp_path / "out", world, **given)
    (document,) = (tmp_path / "cells").glob("cells/*/*.json")
    before = files(tmp_path / "out")
    document.write_bytes(b'{"format": 1, ')
    build(tmp_path / "out", world, **given)
    assert "is not readable; the cell is measured again" in caplog.text
    assert files(tmp_path / "out") == before


# ---------------------------------------------------------------------- what fails


def test_a_bad_checkpoint_fails_alone(world: Path, tmp_path: Path, loads: list[str]) -> None:
    shutil.copytree(world / "nets" / "net0", tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights")
    given = {"checkpoints": [*nets_of(world, 2), str(tmp_path / "broken"), str(tmp_path / "absent")]}
    report = build(tmp_path / "out", world, **given)
    assert (report.done, report.failed) == (4, 4)
    reasons = {failure["checkpoint"]: failure["reason"] for failure in report.failures}
    assert "cannot load 'broken'" in reasons["local:broken"]
    assert "There is no folder" in reasons["local:absent"]
    assert loads.count("broken") == 1  # not once for each task
    assert set(ZooIndex.load(tmp_path / "out").checkpoints["hub_id"]) == {"local:net0", "local:net1"}
    row = table(report)["task1", "local:broken"]
    assert (row["status"], row["reason"]) == ("failed", reasons["local:broken"])
    loads.clear()
    assert build(tmp_path / "out", world, **given).failed == 4  # known, and not tried again
    assert loads == []
    build(tmp_path / "out", world, **given, retry_failed=True)
    assert loads.count("broken") == 1


@pytest.mark.parametrize(("error", "option"), [(ProbeError, {"retry_failed": True}), (HubError, {})])
def test_a_failed_cell_is_tried_again(world: Path, tmp_path: Path, error: type[Exception], option: Any) -> None:
    attempts: list[int] = []

    def load() -> Probe:
        attempts.append(1)
        if len(attempts) == 1:
            raise error("not now")
        return load_probe_of(nets_of(world)[0], None, None)

    given: dict[str, Any] = {"tasks": tasks_of(world)[:1], "checkpoints": [one_net(world, load), nets_of(world)[1]]}
    first = build(tmp_path / "out", world, **given)
    assert [(f["checkpoint"], f["error"], f["reason"]) for f in first.failures] == [
        ("local:odd", error.__name__, "not now")
    ]
    assert build(tmp_path / "out", world, **given, **option).failures == ()
    assert len(attempts) == 2


def test_whatever_a_network_raises_is_a_result(world: Path, tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 1:
                raise ZeroDivisionError("odd")
            return x.mean(dim=(2, 3))

    sound = Probe.from_pretrained(nets_of(world)[0])
    odd = Probe.wrap(Odd(), transform=sound.transform, feature_dim=3, input_size=(3, 64, 64))
    given: dict[str, Any] = {"tasks": tasks_of(world)[:1]}
    report = build(tmp_path / "out", world, **given, checkpoints=[one_net(world, lambda: odd), nets_of(world)[0]])
    assert (report.done, report.failed) == (1, 1)
    assert "fails on the images of 'task0'" in report.failures[0]["reason"]
    assert "ZeroDivisionError: odd" in report.failures[0]["reason"]


def test_a_broken_image_is_left_out_and_counted(world: Path, tmp_path: Path) -> None:
    good = dataset(30)
    cells = list(good.cast_column("image", datasets.Image(decode=False))["image"])
    cells[4] = {"bytes": cells[4]["bytes"][:60], "path": None}
    data = datasets.Dataset.from_dict({"image": cells, "label": good["label"]}, features=good.features)
    datasets.DatasetDict(train=data).save_to_disk(tmp_path / "torn")
    report = build(tmp_path / "out", world, tasks=[str(tmp_path / "torn")], checkpoints=nets_of(world, 1))
    (row,) = table(report).values()
    assert (report.failed, row["n"], row["skipped"]) == (0, "29", "1")


def test_a_bad_task_fails_alone(world: Path, tmp_path: Path) -> None:
    one_class = as_dataset(pictures(6), [0] * 6, 3)
    datasets.DatasetDict(train=one_class).save_to_disk(tmp_path / "one_class")
    report = build(tmp_path / "out", world, tasks=[tasks_of(world)[0], str(tmp_path / "one_class")])
    assert (report.done, report.failed) == (3, 3)
    assert {f["error"] for f in report.failures} == {"LabelError"}
    assert list(ZooIndex.load(tmp_path / "out").tasks["task"]) == ["task0"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tasks": []}, TaskError, "no task to measure"),
        ({"checkpoints": []}, ProbeError, "no checkpoint to measure"),
        ({"checkpoints": ["/nowhere/net"]}, ProbeError, "There is no folder '/nowhere/net'"),
        ({"tasks": ["absent.csv"]}, TaskError, "no such file: 'absent.csv'"),
        ({"checkpoints": ["absent.txt"]}, ProbeError, "no such file: 'absent.txt'"),
        ({"max_samples": 1}, TaskError, "max_samples=1 must be at least 2"),
        ({"device": "abacus"}, ProbeError, "'abacus' cannot be used here"),
    ],
)
def test_errors_before_long_work(
    world: Path, tmp_path: Path, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(tmp_path / "out", world, **options)
    assert not (tmp_path / "out").exists()


def test_names_must_be_unique(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "nets" / "net0", tmp_path / "net0")
    with pytest.raises(ZooIndexError, match=r"several checkpoints would be 'local:net0' in the index"):
        build(tmp_path / "out", world, checkpoints=[nets_of(world)[0], str(tmp_path / "net0")])
    with pytest.raises(TaskError, match=r"'task0' would be the name of several tasks"):
        build(tmp_path / "out", world, tasks=[tasks_of(world)[0], tasks_of(world)[0]])


# ---------------------------------------------------------------------- declared in files


def test_tasks_and_checkpoints_in_files(world: Path, tmp_path: Path) -> None:
    for name in ("data", "nets"):
        (tmp_path / name).symlink_to(world / name)
    (tmp_path / "tasks.csv").write_text(
        "dataset,task,test_split,domain,images_from\ndata/task0,first,,satellite,aid;dtd\nsklearn:digits,,,,\n"
    )
    (tmp_path / "nets.txt").write_text(f"# two nets\n{world}/nets/net0  # the first\n\n{world}/nets/net1\n")
    build(tmp_path / "out", world, tasks=[tmp_path / "tasks.csv"], checkpoints=[tmp_path / "nets.txt"], max_samples=40)
    tasks = ZooIndex.load(tmp_path / "out").tasks.set_index("task")
    assert list(tasks.index) == ["digits", "first"]
    assert tasks.loc["first", "domain"] == "satellite"
    assert tasks.loc["first", "images_from"] == ("aid", "dtd")
    assert tasks.loc["digits", "images_from"] == ("digits",)
    assert tasks.loc["digits", "source"] == "sklearn:digits"
    assert tasks.loc["first", "source"] is None  # a local path says nothing to others


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset,colour\nx/y,red\n", r"tasks.csv: unknown columns colour; there are: dataset, task, name"),
        ("dataset,task\nx/y,Not A Slug\n", r"tasks.csv: row 2, column task: found 'Not A Slug'"),
        ("task\nflowers\n", r"tasks.csv: row 2, column dataset: the cell is empty but a value is required"),
    ],
)
def test_a_wrong_task_file(world: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tasks.csv").write_text(text)
    with pytest.raises(ZooIndexError, match=message):
        build(tmp_path / "out", world, tasks=[tmp_path / "tasks.csv"])


# ---------------------------------------------------------------------- an index that selects


def test_an_index_of_hub_checkpoints_selects(world: Path, tmp_path: Path, hub: HubServer) -> None:
    commits = {f"org/net{i}": hub.create_model(f"org/net{i}", files_of(world / "nets" / f"net{i}")) for i in range(3)}
    hub.create_dataset("org/data", {TRAIN: parquet(dataset(30)), TEST: parquet(dataset(15, seed=3))})
    probe = nets_of(world)[0]
    given: dict[str, Any] = {"tasks": ["org/data", tasks_of(world)[1]], "checkpoints": list(commits), "probe": probe}
    build(tmp_path / "out", world, **given, embed=True)
    index = ZooIndex.load(tmp_path / "out")
    assert index.validate() == []
    assert list(index.tasks["embedded"]) == [True, True]
    data = index.tasks.set_index("task").loc["data"]
    assert data["source"] == "org/data"
    assert len(data["source_revision"]) == 40
    assert (
        index.scores.set_index("checkpoint")
        .loc["org/net1", "versions"]
        .iloc[0]
        .endswith(f"checkpoint {_commit(hub, 'org/net1')[:12]}")
    )
    ranking = select_backbone(dataset(30, seed=8), index=index, probe=probe, device="cpu")
    assert {candidate.hub_id for candidate in ranking} == set(commits)

    before = files(tmp_path / "out")
    count = len(hub.requests)
    build(tmp_path / "out", world, **given, embed=True)
    assert files(tmp_path / "out") == before
    assert not [r for r in hub.requests[count:] if "safetensors" in r.path or "parquet" in r.path]


def _commit(hub: HubServer, repo_id: str) -> str:
    from huggingface_hub import HfApi

    sha = HfApi(endpoint=hub.endpoint).model_info(repo_id).sha
    assert sha is not None
    return sha


def test_a_base_is_extended(world: Path, tmp_path: Path) -> None:
    probe = nets_of(world)[0]
    build(tmp_path / "base", world, tasks=tasks_of(world)[:1], checkpoints=nets_of(world, 2), embed=True, probe=probe)
    base = ZooIndex.load(tmp_path / "base")
    rows = [row.model_dump() | {"license": "mit"} for row in base.rows["checkpoints"]]
    base = base.add_checkpoints(rows, replace=True)
    build(tmp_path / "out", world, base=base)
    index = ZooIndex.load(tmp_path / "out")
    assert len(index.scores) == 6
    assert list(index.checkpoints["license"]) == ["mit", "mit", None]
    assert list(index.tasks["embedded"]) == [True, False]
    with pytest.raises(ZooIndexError, match=r"whose 1 tasks \(task1, …\) would be lost; extend it with base="):
        build(tmp_path / "out", world, tasks=tasks_of(world)[:1])
    build(tmp_path / "out", world, tasks=tasks_of(world)[:1], base=tmp_path / "out")
    assert len(ZooIndex.load(tmp_path / "out").scores) == 6


def test_embeddings_of_one_probe_only(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = shutil.copytree(world / "nets" / "net0", tmp_path / "probe")
    given: dict[str, Any] = {"checkpoints": nets_of(world, 2), "embed": True}
    build(tmp_path / "base", world, tasks=tasks_of(world)[:1], probe=str(probe), **given)
    monkeypatch.chdir(tmp_path)  # the base knows its probe by the folder's name
    shutil.copyfile(world / "nets" / "net1" / "model.safetensors", probe / "model.safetensors")
    with pytest.raises(ProbeMismatchError, match=r"but the base's tasks were embedded with [0-9a-f]{12}…; pass embed"):
        build(tmp_path / "out", world, tasks=tasks_of(world)[1:], base=tmp_path / "base", **given)
    shutil.rmtree(probe)
    with pytest.raises(ProbeError, match=r"tasks cannot be embedded: .* Or pass embed=False"):
        build(tmp_path / "out", world, tasks=tasks_of(world)[1:], base=tmp_path / "base", **given)


@pytest.mark.parametrize(
    ("library", "architecture", "family"),
    [
        ("timm", "vit_tiny_patch16_224", "vit"),
        ("timm", "mobilenetv3_small_100", "mobilenetv3"),
        ("timm", "no_such_network", None),
        ("transformers", "vit_mae", "vit_mae"),
        ("transformers", "Odd Type!", "odd_type"),
    ],
)
def test_families(library: str, architecture: str, family: str | None) -> None:
    assert family_of(library, architecture) == family


def test_a_task_spec_names_its_splits(world: Path, tmp_path: Path) -> None:
    spec = TaskSpec(dataset=tasks_of(world)[0], task="reversed", split="test", test_split="train")
    report = build(tmp_path / "out", world, tasks=[spec], checkpoints=nets_of(world, 1))
    assert table(report)["reversed", "local:net0"]["n_train"] == "15"
    assert set(ZooIndex.load(tmp_path / "out").scores["split"]) == {"test-train"}
