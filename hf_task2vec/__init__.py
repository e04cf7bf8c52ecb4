"""Which Hub checkpoint should I fine-tune on my image dataset?

>>> from hf_task2vec import select_backbone
>>> ranking = select_backbone("org/dataset", max_params=30_000_000)  # doctest: +SKIP
>>> model, transform = ranking.best.load(num_classes=10)  # doctest: +SKIP

The names in ``__init__.pyi`` are loaded when they are first used, so ``import hf_task2vec`` imports no other library.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
