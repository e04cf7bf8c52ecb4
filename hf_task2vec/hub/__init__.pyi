from .client import REQUEST_TIMEOUT as REQUEST_TIMEOUT
from .client import HubSession as HubSession
from .client import Token as Token
from .errors import redact as redact
from .errors import without_tokens as without_tokens
from .mixins import EmbeddingOnHub as EmbeddingOnHub
from .mixins import IndexOnHub as IndexOnHub
