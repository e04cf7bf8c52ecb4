"""Bytes that a selection transfers from a large, label-sorted Parquet dataset on the Hub (served on this machine).

    python -m benchmarks.speed.hub_bytes [--gigabytes 2]

Shards of random pictures (a small JPEG followed by noise, so that sizes are those of photographs) are served by the Hub
of the test suite, which counts the bytes of its answers. Two layouts: row groups of 100 rows in one page, as most image
datasets on the Hub have them, and what `datasets` writes today. Takes 2 GB of disk and a few minutes. Raw output:
results/hub_bytes.json.
"""

from __future__ import annotations

import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import parser, write

SHARDS, CLASSES, IMAGE_BYTES = 40, 100, 50_000
LAYOUTS: dict[str, dict[str, Any]] = {
    "row groups of 100": {"row_group_size": 100},
    "datasets 5": {
        "use_content_defined_chunking": True,
        "write_page_index": True,
        "compression": None,
        "use_dictionary": False,
    },
}


def picture(label: int, size: int, rng: Any) -> bytes:
    """A JPEG in a colour that tells its class, filled up with noise to `size` bytes."""
    from PIL import Image

    stream = io.BytesIO()
    colour = (label * 37 % 256, label * 91 % 256, label * 13 % 256)
    noise = Image.effect_noise((32, 32), 40).convert("RGB")
    Image.blend(Image.new("RGB", (32, 32), colour), noise, 0.3).save(stream, "JPEG")
    return stream.getvalue() + rng.bytes(max(size - stream.tell(), 0))


def write_shards(folder: Path, rows: int, layout: dict[str, Any]) -> Iterator[Path]:
    """Write one shard of `rows` images after the other, sorted by label."""
    import datasets
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"class {i}" for i in range(CLASSES)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    for shard in range(SHARDS):
        rng = np.random.default_rng([0, shard])
        labels = (np.arange(shard * rows, (shard + 1) * rows) * CLASSES // (rows * SHARDS)).tolist()
        sizes = np.clip(rng.lognormal(0, 0.35, rows) / np.exp(0.35**2 / 2), 0.2, 4) * IMAGE_BYTES
        cells = [
            {"bytes": picture(label, int(size), rng), "path": None} for label, size in zip(labels, sizes, strict=True)
        ]
        data = {"image": pa.array(cells, features.arrow_schema.field("image").type), "label": pa.array(labels)}
        path = folder / f"train-{shard:05d}-of-{SHARDS:05d}.parquet"
        pq.write_table(pa.table(data).cast(features.arrow_schema), path, **layout)
        yield path


def measure(hub: Any, repo_id: str, size: int) -> dict[str, Any]:
    """Select for a dataset, and again with the cache, and draw the same sample without it."""
    from hf_task2vec import Task, select_backbone

    found: dict[str, Any] = {}
    for run in ("first", "again", "sample without the cache"):
        if run == "sample without the cache":
            os.environ["HF_TASK2VEC_CACHE"] = tempfile.mkdtemp(dir=os.environ["HF_HOME"])
        hub.forget_requests()
        start = time.perf_counter()
        if run == "first":
            task = select_backbone(repo_id).provenance["task"]
        else:
            task = Task.from_dataset(repo_id).describe()
        counts = task["sample_counts"]
        found[run] = {
            "bytes": hub.bytes_sent,
            "share_of_dataset": hub.bytes_sent / size,
            "requests": len(hub.requests),
            "bytes_of_files": sum(entry.bytes_sent for entry in hub.requested(r"\.parquet$")),
            "seconds": round(time.perf_counter() - start, 2),
            "images": task["n_samples"],
            "images_per_class": [min(counts), max(counts)],
            "fingerprint": task["fingerprint"],
            "drawn_from": task.get("drawn_from"),
        }
    return found


def main() -> None:
    """Write, serve, measure."""
    arguments = parser(__doc__)
    arguments.add_argument("--gigabytes", type=float, default=2.0)
    args = arguments.parse_args()
    from tests.support.hub import HubServer

    hub = HubServer()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="hub-bytes-") as home:
        # Read when the libraries are imported, so none of them may have been before.
        os.environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": home, "HF_HUB_DISABLE_XET": "1"}
        os.environ |= {"HF_TASK2VEC_CACHE": f"{home}/task2vec", "HF_HUB_DISABLE_TELEMETRY": "1"}
        for number, (name, layout) in enumerate(LAYOUTS.items()):
            with tempfile.TemporaryDirectory(dir=home) as folder:
                rows = int(args.gigabytes * 1e9 / SHARDS / IMAGE_BYTES)
                files = {f"data/{path.name}": path for path in write_shards(Path(folder), rows, layout)}
                size = sum(path.stat().st_size for path in files.values())
                repo_id = f"org/big-dataset-{number}"
                hub.create_dataset(repo_id, files)
                for blob in hub.repo(repo_id).resolve("main").tree.values():
                    assert blob.sha256  # else the first request would wait for it
                facts = {"bytes": size, "shards": SHARDS, "classes": CLASSES, "layout": layout}
                results[name] = facts | measure(hub, repo_id, size)
            print(json.dumps({name: results[name]}, indent=2), flush=True)
    hub.stop()
    import datasets
    import huggingface_hub
    import pyarrow

    libraries = {module.__name__: module.__version__ for module in (datasets, huggingface_hub, pyarrow)}
    if args.gigabytes == 2.0:
        write("hub_bytes", {"python": platform.python_version(), **libraries, "results": results})


if __name__ == "__main__":
    main()
