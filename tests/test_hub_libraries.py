"""datasets, timm and transformers against the loopback Hub."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hub import HubServer, card


def parquet_bytes(labels: list[int], *, row_group_size: int | None = None) -> bytes:
    """A parquet file of 8 x 8 px images and their class labels, as `datasets` writes it."""
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as PIL_Image

    images = [PIL_Image.fromarray(np.full((8, 8, 3), 40 * label, np.uint8)) for label in labels]
    features = Features({"picture": Image(), "kind": ClassLabel(names=["cat", "dog", "eel"])})
    buffer = io.BytesIO()
    Dataset.from_dict({"picture": images, "kind": labels}, features=features).to_parquet(
        buffer, batch_size=row_group_size
    )
    return buffer.getvalue()


def test_load_dataset(hub: HubServer) -> None:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    configs = [
        {"config_name": "small", "data_files": [{"split": "train", "path": "small/train-*"}]},
        {"config_name": "two", "data_files": [{"split": s, "path": f"two/{s}-*"} for s in ("train", "test")]},
    ]
    files = {
        "README.md": card(configs=configs),
        "small/train-00000-of-00001.parquet": parquet_bytes([0, 1]),
        "two/train-00000-of-00002.parquet": parquet_bytes([0, 1, 2]),
        "two/train-00001-of-00002.parquet": parquet_bytes([2, 2]),
        "two/test-00000-of-00001.parquet": parquet_bytes([1]),
    }
    first = hub.create_dataset("org/data", files, private=True)
    hub.repo("org/data").commit({"small/train-00000-of-00001.parquet": parquet_bytes([2, 2, 2])})
    with pytest.raises(DatasetNotFoundError, match="org/data"):
        load_dataset("org/data", "two", token=hub.tokens.other)
    token = hub.tokens.read
    assert load_dataset("org/data", "two", split="train", token=token)["kind"][:] == [0, 1, 2, 2, 2]
    assert load_dataset("org/data", "small", split="train", token=token)["kind"][:] == [2, 2, 2]
    old = load_dataset("org/data", "small", split="train", token=token, revision=first)
    assert old["kind"][:] == [0, 1]
    assert old[1]["picture"].getpixel((0, 0)) == (40, 40, 40)
    stream = load_dataset("org/data", "two", split="test", token=token, streaming=True)
    assert [row["kind"] for row in stream] == [1]
    with pytest.raises(DatasetNotFoundError, match="org/absent"):
        load_dataset("org/absent")
    hub.create_dataset("org/gated", files, gated=True)
    with pytest.raises(DatasetNotFoundError, match="gated"):
        load_dataset("org/gated", "small")


def test_load_imagefolder_and_script(hub: HubServer) -> None:
    from datasets import load_dataset
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    names = [f"{split}/{label}/{i}.png" for split in ("train", "test") for label in ("cat", "dog") for i in range(2)]
    hub.create_dataset("org/folder", dict.fromkeys(names, buffer.getvalue()))
    loaded = load_dataset("org/folder")
    assert {split: part["label"][:] for split, part in loaded.items()} == {"train": [0, 0, 1, 1], "test": [0, 0, 1, 1]}
    assert loaded["train"].features["label"].names == ["cat", "dog"]
    hub.create_dataset("org/script", {"script.py": b"import datasets\n"})
    with pytest.raises(RuntimeError, match="Dataset scripts are no longer supported"):
        load_dataset("org/script")


def test_timm_push_and_load(hub: HubServer) -> None:
    timm = pytest.importorskip("timm")
    import torch

    model = timm.create_model("test_vit", num_classes=3).eval()
    timm.models.push_to_hf_hub(model, "org/tiny", token=hub.tokens.write, model_args={"num_classes": 3})
    assert {"README.md", "config.json", "model.safetensors"} <= hub.repo("org/tiny").files().keys()
    again = timm.create_model("hf-hub:org/tiny", pretrained=True).eval()
    image = torch.ones(1, *model.default_cfg["input_size"])
    with torch.no_grad():
        torch.testing.assert_close(again(image), model(image), rtol=1e-5, atol=1e-6)


def test_transformers_save_and_load(hub: HubServer, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    import torch
    from transformers import (
        AutoImageProcessor,
        AutoModelForImageClassification,
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessor,
    )

    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32)
    model = ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    client = hub.client(hub.tokens.write)
    client.create_repo("org/vit")
    sha = client.upload_folder(repo_id="org/vit", folder_path=tmp_path).oid
    again = AutoModelForImageClassification.from_pretrained("org/vit", revision=sha, dtype=torch.float32).eval()
    image = torch.ones(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again(image).logits, model(image).logits, rtol=1e-5, atol=1e-6)
    assert AutoImageProcessor.from_pretrained("org/vit").size["height"] == 32
