"""Pages that need nothing but a browser: the report of a ranking (`page`) and the map of an index (`task_map`).

`html` renders the templates with everything inside; nothing on a page reaches the network.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
