"""The diagonal Fisher information (paper, section 2).

`head` fits the linear head, `cotangents` its closed-form label expectation, `capture` and `kernels` (chosen by
`autotune`) the squared gradients per filter, `diagonal` the sums over images, `variational` the paper's other
estimator, `processes` the work of several processes. Comes in: `Probe` and batches. Goes out: Fisher information.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
