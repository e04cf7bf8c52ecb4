"""New evidence for an index: sweeps, own scores, and what the Hub's cards state.

`build` runs tasks x checkpoints cell by cell (`inputs` checks what it was asked, `cells` measures and keeps, `ray`
spreads over machines) and `rows` turns the cells into rows of the index; `own_scores` adds a score that the user
measured. `cards` reads outcomes from model cards, `harvest` lists the Hub's and remembers what it saw, `outcomes` turns
them into rows, and `hub_tasks` embeds datasets of the Hub. Goes out: a new `ZooIndex`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
