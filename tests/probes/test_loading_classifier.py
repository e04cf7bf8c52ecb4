"""Checkpoints with a fresh head, to fine-tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hf_task2vec.errors import ProbeError
from hf_task2vec.probes.probe import Probe, load_classifier
from tests.support.architectures import CLASSES, TRANSFORMERS_CASES, images, save_timm


def logits_of(model: Any, batch: torch.Tensor) -> torch.Tensor:
    output = model(batch)
    return output if isinstance(output, torch.Tensor) else output.logits


@pytest.mark.parametrize("num_classes", [CLASSES, 7])
@pytest.mark.parametrize(
    "case", ["timm", "vit_classifier", "resnet_classifier", "timm_wrapper_classifier", "clip", "vit_mae"]
)
def test_load_classifier(case: str, num_classes: int, tmp_path: Path) -> None:
    if case == "timm":
        save_timm(tmp_path)
    else:
        TRANSFORMERS_CASES[case](tmp_path)
    model, transform = load_classifier(tmp_path, num_classes)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    frozen = Probe.from_pretrained(tmp_path)
    assert transform(Image.new("RGB", (70, 90))).shape == frozen.input_size
    model.train()
    logits = logits_of(model, images(frozen.input_size))
    assert logits.shape == (3, num_classes)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    heads = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == num_classes]
    assert heads
    assert all(head.weight.grad.abs().sum() > 0 for head in heads)


@pytest.mark.parametrize("case", ["timm", "vit_classifier", "timm_wrapper_classifier", "deit_distilled_classifier"])
def test_head_is_fresh_and_body_is_not(case: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    if case == "timm":
        save_timm(tmp_path)
    else:
        TRANSFORMERS_CASES[case](tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    model, _ = load_classifier(tmp_path, CLASSES)
    if case == "timm":
        now = model.state_dict()
    else:  # transformers' names in files differ from those in memory
        model.save_pretrained(tmp_path / "again")
        now = load_file(tmp_path / "again" / "model.safetensors")
    now = {name.removeprefix("timm_model."): value for name, value in now.items()}
    saved = {name.removeprefix("timm_model."): value for name, value in saved.items()}
    changed = {name for name, value in saved.items() if not torch.equal(value, now[name])}
    heads = {name for name in saved if name.startswith(("fc.", "classifier.", "cls_classifier", "distillation_c"))}
    assert heads
    assert changed == heads


def test_classifier_of_bundled_weights() -> None:
    model, transform = load_classifier("timm/tf_efficientnet_lite0.in1k", 4)
    assert model.classifier.out_features == 4
    assert all(p.requires_grad for p in model.parameters())
    assert transform(Image.new("RGB", (300, 300))).shape == (3, 224, 224)


def test_classifier_errors(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="num_classes=0; a classifier needs at least 1"):
        load_classifier("timm/tf_efficientnet_lite0.in1k", 0)
    with pytest.raises(ProbeError, match=r"no such head for this model type: put a linear layer after Probe"):
        load_classifier(TRANSFORMERS_CASES["siglip_vision"](tmp_path), 3)
