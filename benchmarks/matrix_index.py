"""The measured matrix as part of an index: the same rows for Hub checkpoints and for those that are on no Hub."""

from __future__ import annotations

import json
from typing import Any

from local_checkpoints import CHECKPOINTS
from score_matrix import HUB_IDS, read_rows, score_rows, source_row

from hf_task2vec.schema import LOCAL_PREFIX
from hf_task2vec.zoo import ZooIndex

#: Facts that config.json does not state in the index's vocabulary.
FAMILIES = {
    "lcnet_100": "lcnet",
    "MobileNetV1": "mobilenetv1",
    "mobilenetv2_035": "mobilenetv2",
    "mobilenetv2_100": "mobilenetv2",
    "resnet18": "resnet",
    "squeezenet1_1": "squeezenet",
}
#: Datasets that a local checkpoint has seen besides ImageNet-1k (names as in `images_from` of tasks.csv).
TRAINED_ON = {"resnet56_cifar.cifar10": ("cifar10",), "mobilenetv2_100.keras_dogs19": ("stanford_dogs",)}


def local_rows() -> list[dict[str, Any]]:
    """Rows of ``checkpoints.csv`` for the local checkpoints."""
    rows = []
    for path in sorted(CHECKPOINTS.glob("*/config.json")):
        if path.parent.name in HUB_IDS:
            continue
        config = json.loads(path.read_text(encoding="utf-8"))
        plain = config["pretraining"]["dataset"] == "ImageNet-1k"
        top1 = config.get("published_top1")
        rows.append(
            {
                "hub_id": LOCAL_PREFIX + path.parent.name,
                "library": config["library"] if config["library"] in ("timm", "transformers") else "other",
                "architecture": config["architecture"],
                "family": FAMILIES[config["architecture"]],
                "pretraining": "in1k_supervised" if plain else "other",
                "trained_on": (
                    *(("imagenet1k",) if "ImageNet-1k" in config["pretraining"]["dataset"] else ()),
                    *TRAINED_ON.get(path.parent.name, ()),
                ),
                "params_m": config["params"] / 1e6,
                "gmacs": config["gmacs"],
                "input_px": config["pretrained_cfg"]["input_size"][1],
                "in1k_top1": top1 / 100.0 if plain and top1 else None,
                "facts_source": ("hf_task2vec_measured",),
            }
        )
    return rows


def with_matrix(index: ZooIndex) -> ZooIndex:
    """Return the index with the local checkpoints and every measured score."""
    index = index.add_sources([source_row()], replace=True).add_checkpoints(local_rows())
    return index.add_scores(score_rows(list(read_rows().values()), index), replace=True)
