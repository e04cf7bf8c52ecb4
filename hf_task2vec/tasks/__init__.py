"""A dataset in, a balanced labelled sample out.

`sources` opens what the user names (Hub dataset, folder, file, object); `rows`, `columns` and `labels` find its
images and classes; `sampling` draws; `images` decodes; `parquet` reads files here and on the Hub in parts. `task` is
the road through them: `Task.from_dataset`. Goes out: `Task`, whose images are read when they are first needed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
