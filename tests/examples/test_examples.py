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
from tests.support.hub import HubServer
from tests.support.training import NETS, fill

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIMITS = ("--candidates", *NETS, "--epochs", "2", "--max-train", "24", "--batch-size", "8")
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
    return fill(hub, tmp_path, monkeypatch)


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
    arguments = ["--dataset", "org/photos", "--output", "out", *LIMITS]
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
    assert "went on after the last finished epoch" in capsys.readouterr().out


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
