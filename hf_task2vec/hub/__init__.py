"""Every word said to the Hugging Face Hub and read from it.

`client` holds time limits, retries and downloads (`HubSession`); `errors` says in our words what went wrong and keeps
tokens out of it; `mixins` gives embeddings and indexes their ``push_to_hub`` and ``from_pretrained``.
Comes in: repository names and tokens. Goes out: local files, or a `HubError`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
