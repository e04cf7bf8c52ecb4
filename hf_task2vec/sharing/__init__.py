"""Embeddings and indexes on the Hub: `push`, `pull`, `search`, and the cards that go with them (`cards`)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
