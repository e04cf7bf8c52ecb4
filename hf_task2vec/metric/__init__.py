"""(task, checkpoint) -> standing ± standard deviation.

`observations` turns the index into evidence, `task_space` and `covariance` say what is alike, `training` learns the
parameters, `prediction` conditions on evidence, `experts` is what fine-tuned checkpoints gain; `ranking_metric` is the
trained metric, `static` the rule to beat. `evaluation` judges a metric by leaving groups out, `own_cases` by scores of
the user's own.
Comes in: `ZooIndex`, `TaskEmbedding`. Goes out: `Prediction`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
