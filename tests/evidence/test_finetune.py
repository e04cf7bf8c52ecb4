"""Fine-tuning what was recommended: how data are divided, how the head starts, and the command from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hf_task2vec.errors import DatasetNotFoundError, LabelError, Task2VecError, TaskError
from hf_task2vec.evidence.finetune import Parts, judge, parameter_groups, start_head, with_names
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex
from tests.support.cli_stub import run
from tests.support.hub import HubServer
from tests.support.synthetic import dataset
from tests.support.training import NETS, fill

pytestmark = [
    pytest.mark.timeout(300),
    # Of the libraries themselves: accelerate and the Trainer with the newest torch.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


def test_the_command_from_a_ranking_to_a_model_and_an_index_that_learned(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    fill(hub, tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    small = ("--max-train", "24", "--batch-size", "8", "--epochs", "2")
    words = ("finetune", "org/photos", "-o", "out", "--candidates", ",".join(NETS), *small)
    first = run(*words, "--json", "--add-to-index", "mine")
    assert first.exit_code == 0, first.stderr
    result = json.loads(first.stdout)
    assert result["checkpoint"] in NETS
    assert result["predicted"]["rank"] == 1
    assert 0.34 < result["accuracy"] <= 1.0  # better than chance: colours are easy
    assert {"model.safetensors", "config.json", "README.md"} < {path.name for path in Path("out/model").iterdir()}
    assert f"base_model: {result['checkpoint']}" in Path("out/model/README.md").read_text(encoding="utf-8")
    rows = {
        (row.checkpoint, row.protocol): row.score
        for row in ZooIndex.load("mine").rows["scores"]
        if row.source == "local"
    }
    assert rows[result["checkpoint"], "full_finetune"] == pytest.approx(result["accuracy"])
    again = run(*words)
    assert (again.exit_code, "obtained" in again.stdout, "predicted" in again.stdout) == (0, True, True)
    assert f"{100 * result['accuracy']:.1f} % ±" in again.stdout
    other = run(*words, "--lr", "1")
    assert other.exit_code == 2
    assert "holds a run with other settings (lr)" in " ".join(other.stderr.split())


def test_a_folder_without_a_test_split_and_with_a_class_of_one(tmp_path: Path) -> None:
    for i, row in enumerate(dataset(22, seed=3)):
        label = "rare" if i == 21 else f"class {row['label']}"
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        row["image"].save(tmp_path / "photos" / label / f"{i}.png")
    data = Parts.of_dataset(tmp_path / "photos")
    assert data.names == ("class 0", "class 1", "class 2", "rare")
    assert [len(data.train), len(data.validation), len(data.test)] == [16, 3, 3]
    assert data.names.index("rare") in data.train.labels
    parts = [set(task.images.sha256) for task in (data.train, data.validation, data.test)]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1] | set(data.sample.images.sha256)) & parts[2]


def test_a_test_split_without_labels_is_no_test_split(tmp_path: Path) -> None:
    for i, row in enumerate(dataset(24, seed=3)):
        place = tmp_path / (f"train/class {row['label']}" if i < 18 else "test" if i < 21 else f"val/{row['label']}")
        place.mkdir(parents=True, exist_ok=True)
        row["image"].save(place / f"{i}.png")
    (tmp_path / "val").rename(tmp_path / "unlabeled")
    data = Parts.of_dataset(tmp_path)
    assert [len(data.train), len(data.validation), len(data.test)] == [12, 3, 3]
    with pytest.raises(LabelError, match=r"split 'test' of .* has no class folders"):
        Parts.of_dataset(tmp_path, test_split="test")
    with pytest.raises(DatasetNotFoundError, match="no split 'other'"):
        Parts.of_dataset(tmp_path, test_split="other")


def test_several_labels_an_image_are_not_trained_on() -> None:
    rows = [{**row, "label": [row["label"], 3]} for row in dataset(6)]
    with pytest.raises(TaskError, match="one label each"):
        Parts.of_dataset(rows)


def test_accuracy_and_f1_by_hand() -> None:
    logits = np.eye(3)[[0, 1, 1, 0]]
    found = judge(logits, np.array([0, 1, 2, 0]))
    assert found == pytest.approx({"accuracy": 0.75, "f1_macro": (1.0 + 2.0 / 3.0 + 0.0) / 3.0})


def test_classes_of_the_test_split_in_another_order() -> None:
    task = Task.from_dataset(dataset(12), max_samples=None)
    names = ("class 2", "class 0", "extra", "class 1")
    mapped = with_names(task, names)
    assert [names[i] for i in mapped.labels] == [task.label_names[i] for i in task.labels]
    with pytest.raises(Task2VecError, match="has classes that train lacks: class 0, class 2"):
        with_names(task, ("class 1",))


def transformers_swin() -> torch.nn.Module:
    from transformers import SwinConfig, SwinForImageClassification

    return SwinForImageClassification(
        SwinConfig(image_size=32, patch_size=2, embed_dim=6, depths=[1, 1], num_heads=[3, 3], num_labels=3)
    )


SMALL: dict[str, dict[str, Any]] = {  # in which other layers have three outputs, as many as there are classes
    "swin_tiny_patch4_window7_224": {"img_size": 32, "window_size": 4, "embed_dim": 12, "depths": (1, 1)},
    "cait_xxs24_224": {"img_size": 32, "embed_dim": 12, "depth": 1, "num_heads": 3, "init_values": 1.0},
    "coatnet_nano_rw_224": {"img_size": 64, "stem_width": 8, "embed_dim": (32, 32, 96, 96), "depths": (1, 1, 1, 1)},
    "deit_tiny_distilled_patch16_224": {"img_size": 32, "embed_dim": 12, "depth": 1},
    "transformers": {},
}


@pytest.mark.parametrize("name", SMALL)
def test_the_head_is_found_and_starts_as_a_logistic_regression(name: str) -> None:
    import timm

    torch.manual_seed(0)
    size = SMALL[name].get("img_size", 32)
    model = transformers_swin() if name == "transformers" else timm.create_model(name, num_classes=3, **SMALL[name])
    model.eval()
    x, y = 0.1 * torch.randn(90, 3, size, size), torch.arange(90) % 3
    x += torch.nn.functional.one_hot(y, 3)[:, :, None, None] * torch.linspace(-3, 3, size)
    batches = [{"pixel_values": a, "labels": b} for a, b in zip(x.split(20), y.split(20), strict=True)]
    other = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith(("head", "classifier"))}

    def logits(images: torch.Tensor) -> torch.Tensor:
        return getattr(out := model(images), "logits", out)

    assert start_head(model, batches, 3)
    assert float((logits(x).argmax(1) == y).float().mean()) > 0.8
    assert all(torch.equal(model.state_dict()[k], v) for k, v in other.items())
    fast = [p for group in parameter_groups(model, 1.0, 3) if group["lr"] > 1 for p in group["params"]]
    assert {id(p) for p in fast} == {id(p) for k, p in model.named_parameters() if k.startswith(("head", "classifier"))}


def test_a_head_that_is_no_linear_layer_is_left_as_it_is() -> None:
    import timm

    model = timm.create_model("resnetv2_50x1_bit", num_classes=3).eval()  # a 1 x 1 convolution
    batches = [{"pixel_values": torch.randn(6, 3, 64, 64), "labels": torch.arange(6) % 3}]
    assert not start_head(model, batches, 3)


def test_several_labels_an_image_cannot_be_fine_tuned_on(tmp_path: Path) -> None:
    many = dataset(12).map(lambda row: {"labels": [row["label"], (row["label"] + 1) % 3]}, remove_columns="label")
    with pytest.raises(TaskError, match="fine-tuning takes images with one label each"):
        Parts.of_dataset(many, label_column="labels")


def test_a_test_split_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    for i, row in enumerate(dataset(12)):
        (tmp_path / "train" / f"c{row['label']}").mkdir(parents=True, exist_ok=True)
        row["image"].save(tmp_path / "train" / f"c{row['label']}" / f"{i}.png")
    with pytest.raises(DatasetNotFoundError, match="no split 'judge'"):
        Parts.of_dataset(tmp_path, test_split="judge")
