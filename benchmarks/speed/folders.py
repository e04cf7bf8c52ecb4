"""How long it takes until the first image of a folder of many files is read, and how much memory.

Class folders of hard links to a few small pictures are made in a temporary folder and read in a process of their own,
from the start of Python on: `python -m benchmarks.speed.folders 60000 1280000`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.common import parser, read, write

N_CLASSES, N_PICTURES = 1000, 50
READ = """
import json, resource, sys, time
start = time.perf_counter()
from hf_task2vec import Task
imported = time.perf_counter()
task = Task.from_dataset(sys.argv[1])
opened = time.perf_counter()
task.images[0]
done = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({
    "files": task.n_rows, "classes": task.num_classes, "import_seconds": imported - start,
    "read_seconds": opened - imported, "first_image_seconds": done - start, "peak_mb": peak,
    "cpu_seconds": time.process_time(),
}))
"""


def build(root: Path, n_files: int) -> None:
    """Make class folders of hard links."""
    pool = root / "pool"
    pool.mkdir()
    for i in range(N_PICTURES):
        Image.new("RGB", (24, 24), (5 * i, 255 - 5 * i, i)).save(pool / f"{i}.png")
    n_classes = min(N_CLASSES, n_files // 60)
    for c in range(n_classes):
        folder = root / "photos" / f"class{c:04d}"
        folder.mkdir(parents=True)
        for i in range(n_files // n_classes):
            # A file has at most 65,000 links on ext4.
            os.link(pool / f"{i % N_PICTURES}.png", folder / f"{i:06d}.png")


def measure(n_files: int) -> dict[str, Any]:
    """Return times and memory for a folder of `n_files`."""
    with tempfile.TemporaryDirectory() as place:
        build(Path(place), n_files)
        runs = []
        for _ in range(3):
            done = subprocess.run(
                [sys.executable, "-c", READ, f"{place}/photos"], capture_output=True, text=True, check=True
            )
            runs.append(json.loads(done.stdout))
    return {key: round(sorted(run[key] for run in runs)[1], 3) for key in runs[0]}


def main() -> None:
    """Measure and keep the raw output."""
    cli = parser(__doc__)
    cli.add_argument("files", type=int, nargs="+")
    found = read("folders")
    for n_files in cli.parse_args().files:
        found[str(n_files)] = measure(n_files)
        write("folders", found)
        print(json.dumps(found[str(n_files)]))


if __name__ == "__main__":
    main()
