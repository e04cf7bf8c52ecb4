"""Pages that need nothing but a browser.

`page` is the report of a ranking, `task_map` the map of an index; `html` renders their templates with everything
inside, so that nothing on a page reaches the network. Comes in: `Ranking`, `ZooIndex`. Goes out: a file.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
