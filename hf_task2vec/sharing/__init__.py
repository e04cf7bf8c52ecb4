"""Embeddings and indexes on the Hub.

`push` puts them there with the card that `cards` writes, never private ones in public; `pull` brings them back at one
commit, checked; `search` lists the embeddings that others have shared. Comes in and goes out: `TaskEmbedding`,
`ZooIndex`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
