"""The answer that README begins with: 60 photographs in a folder, and what the command line says on a terminal.

    python -m benchmarks.docs.answer

The photographs are those drawn from the training split of trashnet (seed 0), ten of each kind, saved as JPEG. Raw
output: results/answer.json; `benchmarks.docs.tables` writes it into the page.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from pathlib import Path

from benchmarks.common import TASKS, parser, write
from hf_task2vec import Task, select_backbone
from hf_task2vec.cli.commands import ranking_report
from hf_task2vec.cli.console import show
from hf_task2vec.embedding.embed import library_versions

COUNT, COLUMNS = 60, 150


class Terminal(io.StringIO):
    """What is written to it is laid out for a terminal."""

    def isatty(self) -> bool:
        """Say that it is one."""
        return True


def main() -> None:
    """Save the photographs, rank, and keep what is said."""
    parser(__doc__).parse_args()
    os.environ |= {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "TERM": "xterm"}
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        task = Task.from_dataset(TASKS / "trashnet", max_samples=COUNT)
        for i, (image, label) in enumerate(zip(task.images, task.labels, strict=True)):
            path = photos / task.label_names[label] / f"{i:02}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, quality=92)
        ranking = select_backbone(photos, top_k=5)
    out = Terminal()
    show(ranking_report(ranking, [ranking.summary], 0), "human", out)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    text = "\n".join(line.rstrip() for line in plain.splitlines())
    write("answer", {"text": text, "index": ranking.provenance["index"], "versions": library_versions()})
    print(text)


if __name__ == "__main__":
    main()
