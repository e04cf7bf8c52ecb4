"""The vector of a task: made, compared, kept.

`embed` is the road from `Task` and `Probe` to a `TaskEmbedding` (`task_embedding`: n tasks of one probe, one file),
with `descriptors` beside the vector; `distance` compares; `cache` remembers what was asked before.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
