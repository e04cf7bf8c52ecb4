"""Embed every task of ``../shared/tasks`` with the default probe and put the embeddings into ``zoo_index``.

    python benchmarks/embed_tasks.py [--max-samples 256] [--index zoo_index]

Resumable: each embedding is kept in the cache folder of the package, and a second start reuses it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tqdm import tqdm

from hf_task2vec.embedding.cache import cached_embedding
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT.parent / "shared" / "tasks"


def main() -> None:
    """Embed and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-samples", type=int, default=256)
    parser.add_argument("--index", type=Path, default=ROOT / "zoo_index")
    args = parser.parse_args()
    embeddings = {}
    for row in tqdm(json.loads((TASKS / "MANIFEST.json").read_text())):
        task = Task.from_dataset(TASKS / row["name"], split="train", max_samples=args.max_samples)
        embeddings[row["name"]] = cached_embedding(task)
    stacked = TaskEmbedding.stack(list(embeddings.values()))
    index = ZooIndex.load(args.index).with_embeddings(stacked, list(embeddings), replace=True)
    index.save(args.index)
    print(json.dumps(index.info(), indent=2))


if __name__ == "__main__":
    main()
