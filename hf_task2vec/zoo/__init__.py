"""The index: checkpoints, tasks, scores, embeddings.

`schema` declares a row of each table, `records` reads and writes them, `index` is the `ZooIndex` that holds them, and
`hub_candidates` finds checkpoints on the Hub that are not in it, `experts` those that were fine-tuned from its own;
`datasets` knows what people call its tasks.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
