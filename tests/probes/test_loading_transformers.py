"""Checkpoints of transformers: which vector they give, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from hf_task2vec.errors import ProbeError
from hf_task2vec.probes.probe import Probe, load_classifier, weights_hash
from tests.support.architectures import CLASSES, TRANSFORMERS_CASES, files_of, images
from tests.support.hub import HubServer


@pytest.mark.parametrize("case", TRANSFORMERS_CASES)
def test_transformers_checkpoints(case: str, tmp_path: Path) -> None:
    folder = TRANSFORMERS_CASES[case](tmp_path / case)
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

    folder = TRANSFORMERS_CASES[case](tmp_path / case)
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

    folder = TRANSFORMERS_CASES[case](tmp_path / case)
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

    folder = TRANSFORMERS_CASES["vit_mae"](tmp_path)
    loaded = Probe.from_pretrained(folder)
    batch = images(loaded.input_size)
    unmasked = ViTMAEModel.from_pretrained(folder, mask_ratio=0.0).eval()
    with torch.no_grad():
        expected = unmasked(pixel_values=batch).last_hidden_state[:, 0]
    torch.testing.assert_close(loaded.module(batch), expected, rtol=1e-4, atol=1e-5)


def test_missing_encoder_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = TRANSFORMERS_CASES["dinov2"](tmp_path)
    state = load_file(folder / "model.safetensors")
    dropped = [name for name in state if name.startswith("encoder.layer.1.norm1")]
    assert len(dropped) == 2
    save_file({k: v for k, v in state.items() if k not in dropped}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ProbeError, match=r"lacks 2 tensors of its network \(encoder.layer.1.norm1.*would be random"):
        Probe.from_pretrained(folder)
    with pytest.raises(ProbeError, match=r"lacks 2 tensors of its network \(dinov2.encoder.layer.1.norm1"):
        load_classifier(folder, 3)


def test_transformers_repository_with_token_and_revision(hub: HubServer, tmp_path: Path) -> None:
    folder = TRANSFORMERS_CASES["vit_classifier"](tmp_path / "a")
    first = hub.create_model("org/vit", files_of(folder), private=True)
    hub.repo("org/vit").commit(files_of(TRANSFORMERS_CASES["vit_classifier"](tmp_path / "b")))
    pinned = Probe.from_pretrained("org/vit", revision=first, token=hub.tokens.read)
    assert (pinned.name, pinned.revision) == ("org/vit", first)
    assert weights_hash(pinned.module) == weights_hash(Probe.from_pretrained(folder).module)


def test_repository_code_is_not_run_unasked(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}})
    )
    (tmp_path / "code.py").write_text("raise SystemExit('was run')\n")
    TRANSFORMERS_CASES["vit"](tmp_path / "vit")
    (tmp_path / "vit/preprocessor_config.json").replace(tmp_path / "preprocessor_config.json")
    with pytest.raises(ProbeError, match="if you trust that, load it with transformers yourself"):
        Probe.from_pretrained(tmp_path)


def test_images_of_various_sizes_are_refused(tmp_path: Path) -> None:
    folder = TRANSFORMERS_CASES["convnext"](tmp_path)
    path = folder / "preprocessor_config.json"
    path = path if path.is_file() else folder / "processor_config.json"
    path.write_text(path.read_text().replace('"do_center_crop": true', '"do_center_crop": false'))
    path.write_text(path.read_text().replace('"do_resize": true', '"do_resize": false'))
    with pytest.raises(ProbeError, match=r"\(3, 240, 320\) and \(3, 320, 240\); batches need one shape"):
        Probe.from_pretrained(folder)


def test_missing_image_processor(tmp_path: Path) -> None:
    folder = TRANSFORMERS_CASES["vit"](tmp_path)
    for path in folder.glob("*processor_config.json"):
        path.unlink()
    with pytest.raises(ProbeError, match=r"AutoImageProcessor of transformers .* cannot load"):
        Probe.from_pretrained(folder)
