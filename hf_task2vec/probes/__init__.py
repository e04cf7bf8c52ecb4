"""A network as a frozen feature extractor, and its linear probe.

`checkpoint_files`, `loading` and the two adapters turn a checkpoint's name into a network with its preprocessing;
`probe` wraps it; `layers` and `interception` see its filters and calls, `intermediate` its activations on the way;
`batches` and `devices` feed it. `transfer` measures a linear probe on its features, by the arithmetic of `scores`.
Comes in: a checkpoint or a module, and a `Task`. Goes out: `Probe`, `Score`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
