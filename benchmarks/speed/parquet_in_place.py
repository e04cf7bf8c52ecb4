"""What is written while a folder of large Parquet files is embedded: nothing of the data, whatever its size.

The files are sparse: each picture is followed by zeros up to a megabyte, which take no place on the disk, and which its
decoder does not look at. `python -m benchmarks.speed.parquet_in_place --gb 20`.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.common import parser, write

CELL, ROWS, GROUP = 2**20, 1024, 64  # bytes of a picture, pictures of a file and of a row group
EMBED = """
import json, resource, sys, time
def written():
    facts = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())
    return int(facts["write_bytes"]), int(facts["wchar"]), int(facts["rchar"])
before, start = written(), time.perf_counter()
from hf_task2vec import Task, embed_task
task = Task.from_dataset(sys.argv[1])
embed_task(task)
wrote, passed, read = (after - first for after, first in zip(written(), before))
print(json.dumps({
    "read": task.read, "written_bytes": wrote, "passed_to_write_bytes": passed, "read_bytes": read,
    "seconds": round(time.perf_counter() - start, 1),
    "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
}))
"""


class Sparse(io.RawIOBase):
    """A file that is written with holes where there are only zeros."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def writable(self) -> bool:
        """Say that it can be written."""
        return True

    def write(self, data: Any) -> int:
        """Write what is not zero, by blocks."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), 4096):
            block = bytes(view[start : start + 4096])
            if block.count(0) == len(block):
                self._file.seek(len(block), os.SEEK_CUR)
            else:
                self._file.write(block)
        return len(view)

    def close(self) -> None:
        """Close the file at its full length."""
        if not self.closed:
            self._file.truncate(self._file.tell())
            self._file.close()
        super().close()


def build(folder: Path, gigabytes: int) -> None:
    """Write the files."""
    rng = np.random.default_rng(0)
    for file in range(gigabytes):
        schema = pa.schema([("image", pa.binary()), ("label", pa.string())])
        sink = Sparse(folder / f"train-{file:05d}.parquet")
        plain = {"compression": "none", "use_dictionary": ["label"], "write_statistics": ["label"]}
        with pq.ParquetWriter(pa.PythonFile(sink, "w"), schema, **plain) as writer:
            for start in range(0, ROWS, GROUP):
                cells, labels = [], []
                for row in range(start, start + GROUP):
                    stream = io.BytesIO()
                    tint = np.eye(3, dtype=np.uint8)[row % 3] * 60
                    Image.fromarray(rng.integers(0, 190, (32, 32, 3), dtype=np.uint8) + tint).save(stream, "PNG")
                    cells.append(stream.getvalue().ljust(CELL, b"\0"))
                    labels.append("abc"[row % 3])
                writer.write_table(pa.table({"image": cells, "label": labels}, schema), row_group_size=GROUP)
        sink.close()


def size_of(folder: Path) -> dict[str, int]:
    """Return how long the files of a folder are, and what place they take."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return {
        "files": len(found),
        "bytes": sum(facts.st_size for facts in found),
        "on_disk_bytes": sum(facts.st_blocks * 512 for facts in found),
    }


def main() -> None:
    """Build the files, embed them in a process of its own, and keep the raw output."""
    cli = parser(__doc__)
    cli.add_argument("--gb", type=int, default=20)
    gigabytes = cli.parse_args().gb
    with tempfile.TemporaryDirectory() as place:
        data, home = Path(place) / "photos", Path(place) / "home"
        data.mkdir()
        home.mkdir()
        build(data, gigabytes)
        where = {"HOME": str(home), "HF_HOME": str(home / "hf"), "HF_TASK2VEC_CACHE": str(home / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", EMBED, str(data)],
            env={**os.environ, **where, "HF_HUB_OFFLINE": "1", "TMPDIR": str(home)},
            capture_output=True,
            text=True,
            check=True,
        )
        result = {"data": size_of(data), "home_after": size_of(home), **json.loads(done.stdout)}
    write("parquet_in_place", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
