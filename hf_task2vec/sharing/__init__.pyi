from .outcome import Outcome as Outcome
from .pull import pull_embedding as pull_embedding
from .pull import pull_index as pull_index
from .push import Pushed as Pushed
from .push import push_embedding as push_embedding
from .push import push_index as push_index
from .search import SharedTask as SharedTask
from .search import search_hub as search_hub
