"""Embed every task of ``../shared/tasks`` with the default probe and put the embeddings into ``zoo_index``.

    python -m benchmarks.index.embed_tasks [--new] [--max-samples 256] [--index zoo_index]

With --new, only those that the index has no embedding of. Resumable: each embedding is kept in the cache folder of the
package, and a second start reuses it.
"""

from __future__ import annotations

import json
from pathlib import Path

from tqdm import tqdm

from benchmarks.common import ROOT, TASKS, parser, task_names
from hf_task2vec import Task, TaskEmbedding, ZooIndex
from hf_task2vec.embedding.cache import cached_embedding


def main() -> None:
    """Embed and save."""
    arguments = parser(__doc__)
    arguments.add_argument("--max-samples", type=int, default=256)
    arguments.add_argument("--index", type=Path, default=ROOT / "zoo_index")
    arguments.add_argument("--new", action="store_true")
    args = arguments.parse_args()
    index, embeddings = ZooIndex.load(args.index), {}
    known = set(index.embeddings.names) if args.new else set()
    for name in tqdm([name for name in task_names() if name not in known]):
        task = Task.from_dataset(TASKS / name, split="train", max_samples=args.max_samples)
        embeddings[name] = cached_embedding(task)
    stacked = TaskEmbedding.stack(list(embeddings.values()))
    index = index.with_embeddings(stacked, list(embeddings), replace=not args.new)
    index.save(args.index)
    print(json.dumps(index.info(), indent=2))


if __name__ == "__main__":
    main()
