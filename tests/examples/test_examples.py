"""The fine-tuning examples run, from a ranking to a pushed model, with real download code and the loopback Hub."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from hf_task2vec.errors import Task2VecError
from hf_task2vec.evidence.cards import read_card, split_card
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex
from tests.support.architectures import files_of, save_timm
from tests.support.hub import HubServer
from tests.support.pictures import TEST, TRAIN, parquet
from tests.support.synthetic import dataset

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NETS = ("timm/resnet18.a1_in1k", "timm/resnet34.a1_in1k")
LIMITS = ("--candidates", *NETS, "--epochs", "2", "--max-train", "24", "--batch-size", "8")
PHOTOS = dataset(36, seed=1)
pytestmark = [
    pytest.mark.timeout(300),
    # Of the libraries themselves: accelerate and the Trainer with the newest torch.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings: all tests look at the same images."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(cache))


@pytest.fixture
def filled(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A dataset of coloured noise, and two small networks under the ids of checkpoints of the index."""
    hub.create_dataset("org/photos", {TRAIN: parquet(PHOTOS), TEST: parquet(dataset(25, seed=2))})
    with torch.random.fork_rng():
        for i, hub_id in enumerate(NETS):
            torch.manual_seed(i)
            save_timm(tmp_path / f"net{i}", "test_resnet")
            hub.create_model(hub_id, files_of(tmp_path / f"net{i}"))
    monkeypatch.setenv("HF_TOKEN", hub.tokens.write)
    return hub


def example(name: str) -> ModuleType:
    import importlib

    return importlib.import_module(name)


def photos_for_testing() -> Task:
    return Task.from_dataset("org/photos", split="test", max_samples=None)


def accuracy_again(folder: Path) -> float:
    """Accuracy on the test split of a timm model that was saved, loaded as anyone would."""
    import timm

    test = photos_for_testing()
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform: Any = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.inference_mode():
        logits = model(torch.stack([transform(image) for image in test.images]))
    return float((np.asarray(logits).argmax(axis=1) == test.labels).mean())


def test_timm_from_ranking_to_hub(filled: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--dataset", "org/photos", "--output", "out", *LIMITS]
    result = example("finetune_timm").main([*arguments, "--push-to-hub", "org/model", "--add-to-index", "mine"])
    output = capsys.readouterr().out
    assert result["checkpoint"] in NETS
    assert result["predicted"]["rank"] == 1
    assert (result["n_train"], result["n_validation"], result["n_test"]) == (24, 6, 25)
    assert 0.34 < result["accuracy"] <= 1.0  # better than chance: colours are easy
    assert f"predicted         {100 * result['predicted']['score']:.1f} % (80 % interval" in output
    assert f"obtained          {100 * result['accuracy']:.1f} % ±" in output
    assert result["images_by_process"] == [24]
    # The model that was saved is the one that was judged.
    assert accuracy_again(Path("out/model")) == pytest.approx(result["accuracy"])
    card = filled.repo("org/model").refs["refs/heads/main"].tree["README.md"].read().decode()
    assert {"model.safetensors", "config.json"} < set(filled.repo("org/model").refs["refs/heads/main"].tree)
    assert f"base_model: {result['checkpoint']}" in card
    assert "org/photos" in card
    assert f"| 80 % interval | {100 * result['predicted']['low']:.1f} to" in card
    assert "The nearest reference tasks" in card
    assert f"value: {result['accuracy']}" in card
    (stated,) = read_card("org/model", *split_card(card))
    sizes = (result["n_train"], result["n_test"])
    assert (stated.base, stated.value, stated.n_train, stated.n_test) == (
        result["checkpoint"],
        result["accuracy"],
        *sizes,
    )
    assert (stated.dataset, stated.method) == ("org/photos", "full")
    # The index has learned three things: the fine-tuned accuracy, the linear probe, and the probe network's own.
    index = ZooIndex.load("mine")
    rows = {(row.checkpoint, row.protocol): row.score for row in index.rows["scores"] if row.source == "local"}
    assert rows[result["checkpoint"], "full_finetune"] == pytest.approx(result["accuracy"])
    assert {protocol for _, protocol in rows} == {"full_finetune", "linear_probe_loo"}
    assert len(rows) == 3
    # And the same command has nothing left to do but to judge again.
    assert example("finetune_timm").main(arguments)["accuracy"] == pytest.approx(result["accuracy"])
    with pytest.raises(Task2VecError, match=r"run with other settings \(lr\)"):
        example("finetune_timm").main([*arguments, "--lr", "1"])


def test_timm_goes_on_where_it_was_killed(
    filled: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("finetune_timm")
    arguments = ["--dataset", "org/photos", "--checkpoint", NETS[0], *LIMITS, "--epochs", "3", "--patience", "9"]
    whole = module.main([*arguments, "--output", "whole"])
    keep = module.keep

    def killed(args: Any, accelerator: Any, model: Any, history: list[Any]) -> None:
        keep(args, accelerator, model, history)
        if len(history) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        module.main([*arguments, "--output", "parts"])
    monkeypatch.setattr(module, "keep", keep)
    parts = module.main([*arguments, "--output", "parts"])
    assert "going on after epoch 2" in capsys.readouterr().out
    assert [row["loss"] for row in parts["history"]] == pytest.approx([row["loss"] for row in whole["history"]])
    assert parts["accuracy"] == whole["accuracy"]


def test_trainer(filled: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--dataset", "org/photos", "--output", "out", "--image-size", "64", *LIMITS]
    result = example("finetune_trainer").main(arguments)
    assert result["checkpoint"] in NETS
    assert 0.34 < result["accuracy"] <= 1.0
    assert "obtained" in capsys.readouterr().out
    from transformers import pipeline

    test = photos_for_testing()
    classify = pipeline("image-classification", model="out/model", top_k=1)
    found = [test.label_names.index(answer[0]["label"]) for answer in classify(list(test.images))]
    assert float(np.mean(np.array(found) == test.labels)) == pytest.approx(result["accuracy"])
    assert example("finetune_trainer").main(arguments)["accuracy"] == pytest.approx(result["accuracy"])
    assert "going on from checkpoint-" in capsys.readouterr().out


def test_linear_probe(filled: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("linear_probe")
    arguments = ["--dataset", "org/photos", "--output", "out", *LIMITS[:3], "--views", "2", "--add-to-index", "mine"]
    result = module.main(arguments)
    assert 0.5 < result["accuracy"] <= 1.0
    assert len(result["history"]) >= 4
    from safetensors.numpy import load_file

    from hf_task2vec.probes.probe import Probe

    saved, config = load_file("out/model/classifier.safetensors"), json.loads(Path("out/model/config.json").read_text())
    test = photos_for_testing()
    network = Probe.from_pretrained(config["features_of"])
    with torch.inference_mode():
        features = network.module(torch.stack([network.transform(image) for image in test.images])).numpy()
    again = (features @ saved["weight"].T + saved["bias"]).argmax(axis=1)
    assert float((again == test.labels).mean()) == pytest.approx(result["accuracy"])
    index = ZooIndex.load("mine")
    by = [row.protocol for row in index.rows["scores"] if row.source == "local"]
    assert sorted(by) == ["linear_probe_full"] * 2 + ["linear_probe_loo"] * 2
    # Features are on disk: no image is looked at again.
    monkeypatch.setattr(module, "extract", None)
    assert module.main(arguments)["accuracy"] == result["accuracy"]


def test_a_folder_without_a_test_split_and_with_a_class_of_one(tmp_path: Path) -> None:
    common = example("common")
    for i, row in enumerate(dataset(22, seed=3)):
        label = "rare" if i == 21 else f"class {row['label']}"
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        row["image"].save(tmp_path / "photos" / label / f"{i}.png")
    args = common.options("", epochs=1, lr=1e-3).parse_args(["--dataset", "photos", "--output", "out"])
    data = common.read_data(args)
    assert data.names == ("class 0", "class 1", "class 2", "rare")
    assert [len(data.train), len(data.validation), len(data.test)] == [16, 3, 3]
    assert data.names.index("rare") in data.train.labels
    parts = [set(task.images.sha256) for task in (data.train, data.validation, data.test)]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1] | set(data.sample.images.sha256)) & parts[2]


def test_classes_of_the_test_split_in_another_order() -> None:
    common = example("common")
    task = Task.from_dataset(dataset(12), max_samples=None)
    names = ("class 2", "class 0", "extra", "class 1")
    mapped = common._with_names(task, names)
    assert [names[i] for i in mapped.labels] == [task.label_names[i] for i in task.labels]
    with pytest.raises(Task2VecError, match="has classes that train lacks: class 0, class 2"):
        common._with_names(task, ("class 1",))


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

    common = example("common")
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

    wrapped = example("finetune_trainer")._WarmHead(model) if name == "transformers" else model
    assert common.start_head(wrapped, batches, 3)
    assert float((logits(x).argmax(1) == y).float().mean()) > 0.8
    assert all(torch.equal(model.state_dict()[k], v) for k, v in other.items())
    fast = [p for group in common.parameter_groups(model, 1.0, 3) if group["lr"] > 1 for p in group["params"]]
    assert {id(p) for p in fast} == {id(p) for k, p in model.named_parameters() if k.startswith(("head", "classifier"))}


def test_a_head_that_is_no_linear_layer_is_left_as_it_is() -> None:
    import timm

    model = timm.create_model("resnetv2_50x1_bit", num_classes=3).eval()  # a 1 x 1 convolution
    batches = [{"pixel_values": torch.randn(6, 3, 64, 64), "labels": torch.arange(6) % 3}]
    assert not example("common").start_head(model, batches, 3)


def test_stopping_and_rate() -> None:
    module = example("finetune_timm")
    rows = [{"loss": value} for value in (3.0, 2.0, 2.5, 2.1)]
    assert not module.over(rows[:3], 2)
    assert module.over(rows, 2)
    assert not module.over(rows, 3)
    values = [module.rate(step, 100) for step in range(100)]
    assert max(values) == pytest.approx(1.0)
    assert values.index(max(values)) in (9, 10)
    assert values[-1] < 0.01


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_two_processes_share_the_images(filled: HubServer, tmp_path: Path, launcher: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # With --cpu, accelerate 1.15 starts one process whatever the count; torchrun, behind --multi_gpu, needs no GPU.
    shared = ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--main_process_port", port]
    commands = {
        "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
        "accelerate": ["-m", "accelerate.commands.launch", "--multi_gpu", *shared],
    }
    command = [sys.executable, *commands[launcher], str(EXAMPLES / "finetune_timm.py")]
    command += ["--dataset", "org/photos", "--output", "out", *LIMITS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert result["images_by_process"] == [16, 16]  # three batches of eight are filled up to four
    assert ended.stdout.count("obtained") == 1
    assert accuracy_again(tmp_path / "out" / "model") == pytest.approx(result["accuracy"])
