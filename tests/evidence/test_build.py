"""Building an index: every pair measured once, whatever happens in between."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from hf_task2vec.embedding.computing import Computing
from hf_task2vec.errors import HubError, ProbeError, ProbeMismatchError, Task2VecError, TaskError, ZooIndexError
from hf_task2vec.evidence.build import BuildReport, Checkpoint, TaskSpec, build_index, plan_cells, run_cells
from hf_task2vec.evidence.cells import CellStore
from hf_task2vec.evidence.inputs import load_probe_of, pinned_checkpoint, pinned_task
from hf_task2vec.evidence.rows import family_of
from hf_task2vec.probes.probe import Probe
from hf_task2vec.probes.transfer import linear_probe
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex
from tests.support.architectures import files_of
from tests.support.hub import HubServer
from tests.support.pictures import TEST, TRAIN, parquet
from tests.support.synthetic import as_dataset, broken_cells, dataset, files_in, pictures

pytestmark = pytest.mark.usefixtures("own_cache")

Build = Callable[..., BuildReport]


@pytest.fixture
def build(tasks: list[str], nets: list[str], tmp_path: Path) -> Build:
    """Build an index in ``out``, of all tasks and networks and without embeddings unless told otherwise."""
    return partial(build_index, tmp_path / "out", tasks=tasks, checkpoints=nets, embed=False, device="cpu")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the checkpoints that were loaded, and of the datasets."""
    found: list[str] = []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda what, **options: found.append(Path(str(what)).name) or function(what, **options)

    monkeypatch.setattr(Probe, "from_pretrained", noted(Probe.from_pretrained))
    monkeypatch.setattr(Task, "from_dataset", noted(Task.from_dataset))
    return found


def cells_of(report: BuildReport) -> dict[tuple[str, str], dict[str, str]]:
    """The report of the cells, by task and checkpoint."""
    with report.cells_file.open(encoding="utf-8", newline="") as handle:
        return {(row["task"], row["checkpoint"]): row for row in csv.DictReader(handle)}


def saved(folder: Path, **splits: datasets.Dataset) -> str:
    datasets.DatasetDict(splits).save_to_disk(folder)
    return str(folder)


def odd_net(load: Callable[[], Probe]) -> Checkpoint:
    return Checkpoint("local:odd", {"test": "odd"}, load, {"library": "timm", "architecture": "test_resnet"})


# ---------------------------------------------------------------------- what is measured


def test_every_pair_is_measured_on_both_splits(build: Build, tasks: list[str], nets: list[str], out: Path) -> None:
    report = build()
    assert (report.done, report.failed, report.failures) == (6, 0, ())
    assert dict(report.counts) == {"checkpoints": 3, "tasks": 2, "scores": 6, "sources": 1}
    row = cells_of(report)["task0", "local:net1"]
    assert (row["status"], row["n"], row["n_train"], row["n_test"]) == ("done", "45", "30", "15")
    assert all(float(row[name]) >= 0 for name in ("load", "draw", "extract", "score"))
    # Leave-one-out over both splits is what `linear_probe` gives on a task of all these images.
    both = datasets.concatenate_datasets([datasets.load_from_disk(tasks[0])[split] for split in ("train", "test")])
    whole = linear_probe(nets[1], Task.from_dataset(both, max_samples=None), device="cpu")
    assert (float(row["linear"]), float(row["linear_se"])) == pytest.approx((whole.value, whole.std_error))

    index = ZooIndex.load(out)
    assert index.validate() == []
    score = index.scores.set_index(["task", "checkpoint"]).loc["task0", "local:net1"]
    assert (score["split"], score["n_train"], score["n_test"]) == ("train-test", 44, 45)
    assert score["score"] == pytest.approx(whole.value, abs=1e-6)
    net = index.checkpoints.set_index("hub_id").loc["local:net1"]
    facts = [net[name] for name in ("library", "architecture", "family", "input_px", "license")]
    assert facts == ["timm", "test_resnet", "resnet", 64, None]
    parameters = sum(p.numel() for p in Probe.from_pretrained(nets[1]).module.parameters())
    assert net["params_m"] == pytest.approx(parameters / 1e6)
    assert list(index.tasks["n_images"]) == [45, 45]


def test_what_a_cell_keeps(nets: list[str], tmp_path: Path) -> None:
    """Which images were classified rightly, and the features where they are wanted; classes are matched by name."""

    def named(names: list[str], seed: int) -> datasets.Dataset:
        data = dataset(24, classes=len(names), seed=seed)
        return data.remove_columns("label").add_column("label", [names[label] for label in data["label"]])

    saved(tmp_path / "named", train=named(["red", "blue", "green"], 0), test=named(["green", "red"], 1))
    task, net = pinned_task(TaskSpec(dataset=str(tmp_path / "named"))), pinned_checkpoint(nets[0])
    cells = plan_cells([task], [net], {"max_samples": None, "seed": 0, "keep_features": True})
    store = CellStore(tmp_path / "cells")
    run_cells(cells, store, Computing("cpu"))
    document, kept = store.document(cells[0]), load_file(store.payload_path(cells[0]))
    assert document is not None
    assert kept["features"].shape == (48, document["measurement"]["dim"])
    right = np.unpackbits(kept["correct"], count=48)
    assert right.mean() == pytest.approx(document["measurement"]["linear"])
    drawn = [Task.from_dataset(tmp_path / "named", split=split, max_samples=None) for split in ("train", "test")]
    texts = [np.array(part.label_names)[part.labels] for part in drawn]
    np.testing.assert_array_equal(np.array(drawn[0].label_names)[kept["labels"]], np.concatenate(texts))


def test_splits(build: Build, tasks: list[str], nets: list[str], tmp_path: Path, out: Path) -> None:
    hidden = as_dataset(pictures(9), [-1] * 9, 3)
    saved(tmp_path / "hidden", train=dataset(24), test=hidden, validation=dataset(12, seed=5))
    turned = TaskSpec(dataset=tasks[0], task="turned", split="test", test_split="train")
    report = build(tasks=["sklearn:digits", str(tmp_path / "hidden"), turned], checkpoints=nets[:1], max_samples=60)
    scores = ZooIndex.load(out).scores.set_index("task")
    # One split is judged by leave-one-out alone; a test split without labels gives way to the next.
    assert scores["split"].to_dict() == {"digits": "train", "hidden": "train-validation", "turned": "test-train"}
    assert scores["n_test"].to_dict() == {"digits": 60, "hidden": 36, "turned": 45}
    assert set(scores["protocol"]) == {"linear_probe_loo"}
    assert cells_of(report)["turned", "local:net0"]["n_train"] == "15"


# ---------------------------------------------------------------------- once and no more


def test_only_what_is_new_is_measured(
    build: Build, nets: list[str], tmp_path: Path, out: Path, loads: list[str]
) -> None:
    build(checkpoints=nets[:2])
    assert sorted(name for name in loads if name.startswith("net")) == ["net0", "net1"]  # once for all its tasks
    loads.clear()
    assert build().done == 6
    assert [name for name in loads if name.startswith("net")] == ["net2"]
    before = files_in(out)
    loads.clear()
    build()
    assert loads == []
    assert files_in(out) == before
    (document, *_) = (tmp_path / "cache").rglob("cells/*/*.json")
    document.write_bytes(b'{"format": 1, ')
    build()
    assert len([name for name in loads if name.startswith("net")]) == 1  # what cannot be read is measured again
    assert files_in(out) == before
    shutil.rmtree(out)
    build(cache=tmp_path / "fresh")
    assert files_in(out) == before


def test_changed_weights_images_and_seeds_are_measured_again(
    build: Build, nets: list[str], tmp_path: Path, loads: list[str]
) -> None:
    net = shutil.copytree(nets[0], tmp_path / "net0")
    build = partial(build, tasks=[saved(tmp_path / "task0", train=dataset(30))], checkpoints=[str(net)])
    build()
    shutil.copyfile(f"{nets[1]}/model.safetensors", net / "model.safetensors")
    loads.clear()
    build()
    assert "net0" in loads
    shutil.rmtree(tmp_path / "task0")
    saved(tmp_path / "task0", train=dataset(30, seed=9))
    for options in ({}, {"seed": 1}):
        loads.clear()
        build(**options)
        assert "net0" in loads


def test_killed_at_any_moment(build: Build, tasks: list[str], nets: list[str], tmp_path: Path, out: Path) -> None:
    code = (
        "import sys; from hf_task2vec.evidence import build_index;"
        "build_index(sys.argv[1], sys.argv[3:5], sys.argv[5:], cache=sys.argv[2], embed=False, device='cpu')"
    )
    command = [sys.executable, "-c", code, str(out), str(tmp_path / "cells")]
    process = subprocess.Popen([*command, *tasks, *nets])

    def kept() -> dict[Path, int]:
        """Finished cells, and when they were written."""
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("cells/*/*.json")}

    deadline = time.monotonic() + 240
    while not kept() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it came to its end before it could be killed"
    before = kept()
    assert 1 <= len(before) < 6
    assert all(json.loads(path.read_bytes())["key"] for path in before)
    assert not out.exists()

    assert build(cache=tmp_path / "cells").done == 6
    assert before.items() <= kept().items()  # not measured again
    whole = files_in(out)
    shutil.rmtree(out)
    build(cache=tmp_path / "others")
    assert files_in(out) == whole


# ---------------------------------------------------------------------- what fails


def test_a_bad_checkpoint_fails_alone(
    build: Build, nets: list[str], tmp_path: Path, out: Path, loads: list[str]
) -> None:
    broken = shutil.copytree(nets[0], tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    build = partial(build, checkpoints=[*nets[:2], str(broken), str(tmp_path / "absent")])
    report = build()
    assert (report.done, report.failed) == (4, 4)
    reasons = {failure["checkpoint"]: failure["reason"] for failure in report.failures}
    assert "cannot load 'broken'" in reasons["local:broken"]
    assert "There is no folder" in reasons["local:absent"]
    assert loads.count("broken") == 1  # not once for each task
    assert set(ZooIndex.load(out).checkpoints["hub_id"]) == {"local:net0", "local:net1"}
    row = cells_of(report)["task1", "local:broken"]
    assert (row["status"], row["reason"]) == ("failed", reasons["local:broken"])
    loads.clear()
    assert build().failed == 4  # known, and not tried again
    assert loads == []
    build(retry_failed=True)
    assert loads.count("broken") == 1


@pytest.mark.parametrize(("error", "option"), [(ProbeError, {"retry_failed": True}), (HubError, {})])
def test_a_failed_cell_is_tried_again(
    build: Build, tasks: list[str], nets: list[str], error: type[Exception], option: Any
) -> None:
    attempts: list[int] = []

    def load() -> Probe:
        attempts.append(1)
        if len(attempts) == 1:
            raise error("not now")
        return load_probe_of(nets[0], None, None)

    build = partial(build, tasks=tasks[:1], checkpoints=[odd_net(load), nets[1]])
    (failure,) = build().failures
    assert (failure["checkpoint"], failure["error"], failure["reason"]) == ("local:odd", error.__name__, "not now")
    assert build(**option).failures == ()
    assert len(attempts) == 2


def test_whatever_a_network_raises_is_a_result(build: Build, tasks: list[str], nets: list[str]) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 1:
                raise ZeroDivisionError("odd")
            return x.mean(dim=(2, 3))

    transform = Probe.from_pretrained(nets[0]).transform
    odd = Probe.wrap(Odd(), transform=transform, feature_dim=3, input_size=(3, 64, 64))
    report = build(tasks=tasks[:1], checkpoints=[odd_net(lambda: odd), nets[0]])
    assert (report.done, report.failed) == (1, 1)
    assert "fails on the images of 'task0'" in report.failures[0]["reason"]
    assert "ZeroDivisionError: odd" in report.failures[0]["reason"]


def test_a_bad_task_fails_alone_and_a_broken_image_is_counted(
    build: Build, tasks: list[str], nets: list[str], tmp_path: Path, out: Path
) -> None:
    one_class = saved(tmp_path / "one_class", train=as_dataset(pictures(6), [0] * 6, 3))
    torn = saved(tmp_path / "torn", train=broken_cells(dataset(30), [4]))
    report = build(tasks=[tasks[0], one_class, torn], checkpoints=nets[:1])
    assert (report.done, report.failed) == (2, 1)
    assert {f["error"] for f in report.failures} == {"LabelError"}
    assert list(ZooIndex.load(out).tasks["task"]) == ["task0", "torn"]
    row = cells_of(report)["torn", "local:net0"]
    assert (row["n"], row["skipped"]) == ("29", "1")


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
        ("dataset,colour\nx/y,red\n", ZooIndexError, "tasks.csv: unknown columns colour; there are: dataset, task, na"),
        ("dataset,task\nx/y,Not A Slug\n", ZooIndexError, "tasks.csv: row 2, column task: found 'Not A Slug'"),
        ("task\nflowers\n", ZooIndexError, "tasks.csv: row 2, column dataset: the cell is empty but a value is requ"),
    ],
)
def test_errors_before_long_work(
    build: Build, tmp_path: Path, out: Path, options: dict[str, Any] | str, error: type[Task2VecError], message: str
) -> None:
    if isinstance(options, str):
        (tmp_path / "tasks.csv").write_text(options)
        options = {"tasks": [tmp_path / "tasks.csv"]}
    with pytest.raises(error, match=message):
        build(**options)
    assert not out.exists()


def test_names_must_be_unique(build: Build, tasks: list[str], nets: list[str], tmp_path: Path) -> None:
    other = shutil.copytree(nets[0], tmp_path / "net0")
    with pytest.raises(ZooIndexError, match="several checkpoints would be 'local:net0' in the index"):
        build(checkpoints=[nets[0], str(other)])
    with pytest.raises(TaskError, match="'task0' would be the name of several tasks"):
        build(tasks=[tasks[0], tasks[0]])


# ---------------------------------------------------------------------- declared in files


def test_tasks_and_checkpoints_in_files(build: Build, world: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "data").symlink_to(world / "data")
    (tmp_path / "tasks.csv").write_text(
        "dataset,task,test_split,domain,images_from\ndata/task0,first,,satellite,aid;dtd\nsklearn:digits,,,,\n"
    )
    (tmp_path / "nets.txt").write_text(f"# two nets\n{world}/nets/net0  # the first\n\n{world}/nets/net1\n")
    build(tasks=[tmp_path / "tasks.csv"], checkpoints=[tmp_path / "nets.txt"], max_samples=40)
    tasks = ZooIndex.load(out).tasks.set_index("task")
    assert tasks.loc[["first", "digits"], ["domain", "images_from", "source"]].to_numpy().tolist() == [
        ["satellite", ("aid", "dtd"), None],  # a local path says nothing to others
        [tasks.loc["digits", "domain"], ("digits",), "sklearn:digits"],
    ]
    assert len(ZooIndex.load(out).scores) == 4


def test_a_row_may_say_where_a_folder_has_its_labels(build: Build, nets: list[str], tmp_path: Path, out: Path) -> None:
    lines = ["file,kind"]
    for i, row in enumerate(dataset(24)):
        path = tmp_path / "photos" / f"camera {i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        row["image"].save(path)
        lines.append(f"{path.name},{row['label']}")
    (tmp_path / "photos" / "kinds.csv").write_text("\n".join(lines))
    (tmp_path / "tasks.csv").write_text("dataset,task,labels_from\nphotos,cameras,\nphotos,kinds,kinds.csv\n")
    build(tasks=[tmp_path / "tasks.csv"], checkpoints=nets[:1])
    assert dict(ZooIndex.load(out).tasks.set_index("task")["n_classes"]) == {"cameras": 2, "kinds": 3}


# ---------------------------------------------------------------------- an index that selects


def test_an_index_of_hub_checkpoints_selects(
    build: Build, tasks: list[str], nets: list[str], out: Path, hub: HubServer
) -> None:
    commits = {f"org/net{i}": hub.create_model(f"org/net{i}", files_of(Path(net))) for i, net in enumerate(nets)}
    hub.create_dataset("org/data", {TRAIN: parquet(dataset(30)), TEST: parquet(dataset(15, seed=3))})
    build = partial(build, tasks=["org/data", tasks[1]], checkpoints=list(commits), probe=nets[0], embed=True)
    build()
    index = ZooIndex.load(out)
    assert index.validate() == []
    assert list(index.tasks["embedded"]) == [True, True]
    data = index.tasks.set_index("task").loc["data"]
    assert data["source"] == "org/data"
    assert len(data["source_revision"]) == 40
    versions = index.scores.set_index("checkpoint")["versions"]
    assert versions["org/net1"].iloc[0].endswith(f"checkpoint {commits['org/net1'][:12]}")
    ranking = select_backbone(dataset(30, seed=8), index=index, probe=nets[0], device="cpu")
    assert {candidate.hub_id for candidate in ranking} == set(commits)

    before = files_in(out)
    hub.forget_requests()
    build()
    assert files_in(out) == before
    assert not [r for r in hub.requests if "safetensors" in r.path or "parquet" in r.path]


def test_a_base_is_extended(build: Build, tasks: list[str], nets: list[str], tmp_path: Path, out: Path) -> None:
    build(tasks=tasks[:1], checkpoints=nets[:2], embed=True, probe=nets[0])
    base = ZooIndex.load(out.rename(tmp_path / "base"))
    rows = [row.model_dump() | {"license": "mit"} for row in base.rows["checkpoints"]]
    build(base=base.add_checkpoints(rows, replace=True))
    index = ZooIndex.load(out)
    assert len(index.scores) == 6
    assert list(index.checkpoints["license"]) == ["mit", "mit", None]
    assert list(index.tasks["embedded"]) == [True, False]
    with pytest.raises(ZooIndexError, match=r"whose 1 tasks \(task1, …\) would be lost; extend it with base="):
        build(tasks=tasks[:1])
    build(tasks=tasks[:1], base=out)
    assert len(ZooIndex.load(out).scores) == 6


def test_embeddings_of_one_probe_only(
    build: Build, tasks: list[str], nets: list[str], tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = shutil.copytree(nets[0], tmp_path / "probe")
    build = partial(build, checkpoints=nets[:2], embed=True)
    build(tasks=tasks[:1], probe=str(probe))
    monkeypatch.chdir(tmp_path)  # the base knows its probe by the folder's name
    shutil.copyfile(f"{nets[1]}/model.safetensors", probe / "model.safetensors")
    with pytest.raises(ProbeMismatchError, match=r"but the base's tasks were embedded with [0-9a-f]{12}…; pass embed"):
        build(tasks=tasks[1:], base=out)
    shutil.rmtree(probe)
    with pytest.raises(ProbeError, match=r"tasks cannot be embedded: .* Or pass embed=False"):
        build(tasks=tasks[1:], base=out)


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
