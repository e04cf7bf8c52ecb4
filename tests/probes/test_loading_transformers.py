"""Checkpoints of transformers: which vector they give, what is refused, and any checkpoint with a fresh head."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hf_task2vec.errors import ProbeError
from hf_task2vec.probes.probe import Probe, load_classifier, weights_hash
from tests.support.architectures import CLASSES, TRANSFORMERS_CASES, images, saved


@pytest.mark.parametrize("case", TRANSFORMERS_CASES)
def test_transformers_checkpoints(case: str, tmp_path: Path) -> None:
    folder = saved(case, tmp_path / case)
    loaded = Probe.from_pretrained(folder)
    assert loaded.name == case
    assert not loaded.module.training
    assert not any(p.requires_grad for p in loaded.module.parameters())
    assert {p.dtype for p in loaded.module.parameters()} == {torch.float32}
    json.dumps(loaded.preprocessing)

    picture = Image.effect_noise((50, 40), 90).convert("RGB")
    pixels = pickle.loads(pickle.dumps(loaded.transform))(picture)
    assert (pixels.shape, pixels.dtype) == (loaded.input_size, torch.float32)

    batch = torch.cat([images(loaded.input_size), pixels[None]])
    features = loaded.module(batch)
    assert (features.shape, features.dtype) == ((4, loaded.feature_dim), torch.float32)
    assert torch.isfinite(features).all()
    assert (features.std(0) > 0).any(), "all images have the same features"
    torch.testing.assert_close(loaded.module(batch[2:3])[0], features[2], rtol=1e-4, atol=1e-5)

    again = Probe.from_pretrained(folder)
    assert weights_hash(again.module) == weights_hash(loaded.module), "some weights are random"
    torch.testing.assert_close(again.module(batch), features, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [case for case in TRANSFORMERS_CASES if case.endswith("_classifier")])
def test_features_of_a_classifier_are_what_its_linear_layer_gets(case: str, tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    folder = saved(case, tmp_path / case)
    loaded = Probe.from_pretrained(folder)
    original = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    linears = [m for m in original.modules() if isinstance(m, torch.nn.Linear) and m.out_features == CLASSES]
    got: list[torch.Tensor] = []
    for linear in linears:
        linear.register_forward_hook(lambda _module, inputs, _output: got.append(inputs[0].detach()))
    batch = images(loaded.input_size)
    with torch.no_grad():
        original(pixel_values=batch)
    assert len(got) == (2 if "distilled" in case else 1)
    torch.testing.assert_close(loaded.module(batch), torch.stack(got).mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "tower", "pooled"),
    [
        ("vit", "ViTModel", "pooler_output"),
        ("vit_without_pooler", "ViTModel", "cls"),
        ("dinov2", "Dinov2Model", "cls"),
        ("clip", "CLIPVisionModel", "pooler_output"),
        ("siglip", "SiglipVisionModel", "pooler_output"),
        ("convnext", "ConvNextModel", "pooler_output"),
        ("resnet", "ResNetModel", "mean"),
        ("swin", "SwinModel", "mean"),
    ],
)
def test_pooling_of_other_checkpoints(case: str, tower: str, pooled: str, tmp_path: Path) -> None:
    import transformers

    folder = saved(case, tmp_path / case)
    loaded = Probe.from_pretrained(folder)
    batch = images(loaded.input_size)
    with torch.no_grad():
        output = getattr(transformers, tower).from_pretrained(folder).eval()(pixel_values=batch)
    hidden = output.last_hidden_state
    mean = hidden.mean((2, 3)) if hidden.ndim == 4 else hidden.mean(1)
    expected = {"cls": hidden[:, 0] if hidden.ndim == 3 else None, "mean": mean, "pooler_output": output.pooler_output}
    torch.testing.assert_close(loaded.module(batch), expected[pooled], rtol=1e-5, atol=1e-6)


def test_masked_autoencoder_sees_the_whole_image(tmp_path: Path) -> None:
    from transformers import ViTMAEModel

    folder = saved("vit_mae", tmp_path)
    loaded = Probe.from_pretrained(folder)
    batch = images(loaded.input_size)
    unmasked = ViTMAEModel.from_pretrained(folder, mask_ratio=0.0).eval()
    with torch.no_grad():
        expected = unmasked(pixel_values=batch).last_hidden_state[:, 0]
    torch.testing.assert_close(loaded.module(batch), expected, rtol=1e-4, atol=1e-5)


def test_missing_encoder_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved("dinov2", tmp_path)
    state = load_file(folder / "model.safetensors")
    dropped = [name for name in state if name.startswith("encoder.layer.1.norm1")]
    assert len(dropped) == 2
    save_file({k: v for k, v in state.items() if k not in dropped}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ProbeError, match=r"lacks 2 tensors of its network \(encoder.layer.1.norm1.*would be random"):
        Probe.from_pretrained(folder)
    with pytest.raises(ProbeError, match=r"lacks 2 tensors of its network \(dinov2.encoder.layer.1.norm1"):
        load_classifier(folder, 3)


def test_repository_code_is_not_run_unasked(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}})
    )
    (tmp_path / "code.py").write_text("raise SystemExit('was run')\n")
    saved("vit", tmp_path / "vit")
    (tmp_path / "vit/preprocessor_config.json").replace(tmp_path / "preprocessor_config.json")
    with pytest.raises(ProbeError, match="if you trust that, load it with transformers yourself"):
        Probe.from_pretrained(tmp_path)


def test_images_of_various_sizes_are_refused(tmp_path: Path) -> None:
    folder = saved("convnext", tmp_path)
    path = folder / "preprocessor_config.json"
    path = path if path.is_file() else folder / "processor_config.json"
    path.write_text(path.read_text().replace('"do_center_crop": true', '"do_center_crop": false'))
    path.write_text(path.read_text().replace('"do_resize": true', '"do_resize": false'))
    with pytest.raises(ProbeError, match=r"\(3, 240, 320\) and \(3, 320, 240\); batches need one shape"):
        Probe.from_pretrained(folder)


def test_missing_image_processor(tmp_path: Path) -> None:
    folder = saved("vit", tmp_path)
    for path in folder.glob("*processor_config.json"):
        path.unlink()
    with pytest.raises(ProbeError, match=r"AutoImageProcessor of transformers .* cannot load"):
        Probe.from_pretrained(folder)


# ---------------------------------------------------------------------- with a fresh head, to fine-tune


def logits_of(model: Any, batch: torch.Tensor) -> torch.Tensor:
    output = model(batch)
    return output if isinstance(output, torch.Tensor) else output.logits


@pytest.mark.parametrize("num_classes", [CLASSES, 7])
@pytest.mark.parametrize(
    "case", ["timm", "vit_classifier", "resnet_classifier", "timm_wrapper_classifier", "clip", "vit_mae"]
)
def test_load_classifier(case: str, num_classes: int, tmp_path: Path) -> None:
    saved(case, tmp_path)
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

    before = load_file(saved(case, tmp_path) / "model.safetensors")
    model, _ = load_classifier(tmp_path, CLASSES)
    if case == "timm":
        now = model.state_dict()
    else:  # transformers' names in files differ from those in memory
        model.save_pretrained(tmp_path / "again")
        now = load_file(tmp_path / "again" / "model.safetensors")
    now = {name.removeprefix("timm_model."): value for name, value in now.items()}
    before = {name.removeprefix("timm_model."): value for name, value in before.items()}
    changed = {name for name, value in before.items() if not torch.equal(value, now[name])}
    heads = {name for name in before if name.startswith(("fc.", "classifier.", "cls_classifier", "distillation_c"))}
    assert heads
    assert changed == heads


def test_classifier_of_the_packaged_weights() -> None:
    model, transform = load_classifier("timm/tf_efficientnet_lite0.in1k", 4)
    assert model.classifier.out_features == 4
    assert transform(Image.new("RGB", (300, 300))).shape == (3, 224, 224)


def test_classifier_errors(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="num_classes=0; a classifier needs at least 1"):
        load_classifier("timm/tf_efficientnet_lite0.in1k", 0)
    with pytest.raises(ProbeError, match=r"no such head for this model type: put a linear layer after Probe"):
        load_classifier(saved("siglip_vision", tmp_path), 3)
