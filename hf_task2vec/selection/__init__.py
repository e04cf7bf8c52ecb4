"""The answer to the user: `select_backbone` and its `Ranking`.

`select` is the road, `limits` what the user allows, `experts` finds fine-tuned checkpoints, `recommendation` joins the
metric with the candidates, `explanation` says why, `refinement` measures the most promising ones, `ranking` is what she
gets.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
