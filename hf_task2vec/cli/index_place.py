"""Where an index lies: a folder, or a repository of the Hub that is fetched when it is needed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

_REPOSITORY = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


class IndexPlace(os.PathLike[str]):
    """The value of ``--index``: a folder, or ``org/name[@revision]`` on the Hub. An existing folder comes first.

    It is a path: whoever opens it gets the folder, downloaded where it has to be. That is not done when the option is
    read, but in the command's session, which knows the Hub to use and tells errors.
    """

    def __init__(self, text: str, ctx: click.Context) -> None:
        self._text, self._ctx = text, ctx
        self._folder: str | None = None

    def __str__(self) -> str:
        return self._text

    def __fspath__(self) -> str:
        """Return the folder.

        Raises
        ------
        ZooIndexError
            There is no such folder, and no repository can have that name; or the repository holds no index.
        HubError
            The repository cannot be had.
        """
        if self._folder is None:
            self._folder = self._find()
        return self._folder

    def _find(self) -> str:
        from hf_task2vec.errors import HubError, ZooIndexError

        path = Path(self._text).expanduser()
        if path.exists():
            return str(path)
        missing = f"there is no folder {self._text!r} here ({Path.cwd()})"
        match = _REPOSITORY.fullmatch(self._text)
        if match is None or self._text.startswith("."):
            raise ZooIndexError(f"{missing}, and an index on the Hub is named org/name or org/name@revision")
        from hf_task2vec.hub import HubSession
        from hf_task2vec.hub_pull import pull_index

        hub: dict[str, Any] = {name: self._ctx.params.get(name) for name in ("token", "timeout")}
        try:
            return str(pull_index(HubSession(match["id"], revision=match["revision"], **hub)))
        except HubError as error:
            raise type(error)(f"{error}; and {missing}") from error


def as_place(ctx: click.Context, param: click.Parameter, value: str | None) -> IndexPlace | None:
    """Turn the value of an option into a place (a click callback)."""
    return None if value is None else IndexPlace(value, ctx)
