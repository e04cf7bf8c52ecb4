"""A Hugging Face Hub on loopback for the test suite, spoken to by the real clients."""

from __future__ import annotations

from .faults import Fault
from .server import HubServer, LoggedRequest
from .store import Repo, Tokens
from .views import card

__all__ = ["Fault", "HubServer", "LoggedRequest", "Repo", "Tokens", "card"]
