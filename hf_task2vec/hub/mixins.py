"""``push_to_hub`` and ``from_pretrained`` of embeddings and indexes; `sharing` does the work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar, cast

from hf_task2vec.hub.client import HubSession

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.sharing import Pushed
    from hf_task2vec.zoo import ZooIndex

E = TypeVar("E", bound="EmbeddingOnHub")
Z = TypeVar("Z", bound="IndexOnHub")


class EmbeddingOnHub:
    """Sharing of task embeddings in dataset repositories of the Hub."""

    __slots__ = ()

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        create_pr: bool | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        into_dataset: bool | None = None,
        license: str | None = None,  # noqa: A002 (the card's own word)
        index: ZooIndex | None = None,
        message: str | None = None,
        timeout: float | None = None,
    ) -> Pushed:
        """Put the embedding into a dataset repository of the Hub, with a card; an older one of the task is replaced.

        The file ``task2vec/embedding.safetensors`` holds the vector, the descriptors and the provenance, which names
        the dataset, its columns and its classes: whoever can read the repository can read these. No image is
        uploaded, and no name of a file.

        Parameters
        ----------
        repo_id
            ``"org/name"``; created if there is none.
        private
            Whether a new repository is private (default: the account's own). With True, nothing is put into an
            existing public one.
        create_pr
            Open a pull request instead of committing.
        revision
            Branch to commit to, created if it is missing (default: ``main``).
        token
            Hub token with the right to write; by default the one of the environment or the cached login.
        into_dataset
            `repo_id` is the repository of the dataset itself: the file is added by a pull request unless
            ``create_pr=False``, and the card there is left alone. By default, true if the embedding was made of that
            very dataset.
        license
            Licence to name in the card.
        index
            Index whose nearest tasks the card shows (default: the shipped one, if it was made with the same probe).
        message
            First line of the commit's message, or title of the pull request.
        timeout
            Seconds that the whole may take (default: ``$HF_TASK2VEC_HUB_TIMEOUT``, or 300).

        Returns
        -------
        Pushed
            Where it is now: `url`, `commit`, `pull_request`, `files`.

        Raises
        ------
        HubError
            It could not be pushed. The embedding itself is untouched, and the repository is as it was.
        """
        from hf_task2vec.sharing import push_embedding

        return push_embedding(
            cast("TaskEmbedding", self),
            HubSession(repo_id, revision=revision, token=token, timeout=timeout),
            private=private,
            create_pr=create_pr,
            into_dataset=into_dataset,
            license=license,
            index=index,
            message=message,
        )

    @classmethod
    def from_pretrained(
        cls: type[E],
        repo_id: str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> E:
        """Read an embedding from a dataset repository of the Hub, or from the cache if the Hub cannot be reached.

        Parameters
        ----------
        repo_id
            ``"org/name"``: a repository that :meth:`push_to_hub` filled, or a dataset with a folder ``task2vec``.
        revision
            Branch, tag or commit.
        token
            Hub token; by default the one of the environment or the cached login.
        cache_dir
            Folder of the Hub cache (default: that of all Hugging Face libraries).
        timeout
            Seconds that the whole may take (default: ``$HF_TASK2VEC_HUB_TIMEOUT``, or 300).

        Raises
        ------
        HubError
            The repository or file cannot be had.
        EmbeddingError
            The file is no embedding.
        """
        from hf_task2vec.sharing import pull_embedding

        session = HubSession(repo_id, revision=revision, token=token, timeout=timeout)
        return cast("E", pull_embedding(session, cache_dir))


class IndexOnHub:
    """Sharing of zoo indexes in dataset repositories of the Hub."""

    __slots__ = ()

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        create_pr: bool = False,
        revision: str | None = None,
        token: str | bool | None = None,
        license: str | None = None,  # noqa: A002 (the card's own word)
        message: str | None = None,
        timeout: float | None = None,
    ) -> Pushed:
        """Put the index into a dataset repository of the Hub, with a card; an older index there is replaced.

        Parameters
        ----------
        repo_id, private, create_pr, revision, token, license, message, timeout
            As for :meth:`~hf_task2vec.embedding.task_embedding.TaskEmbedding.push_to_hub`.

        Returns
        -------
        Pushed
            Where it is now: `url`, `commit`, `pull_request`, `files`.

        Raises
        ------
        HubError
            It could not be pushed. The repository is as it was: all files change in one commit.
        """
        from hf_task2vec.sharing import push_index

        session = HubSession(repo_id, revision=revision, token=token, timeout=timeout)
        return push_index(
            cast("ZooIndex", self), session, private=private, create_pr=create_pr, license=license, message=message
        )

    @classmethod
    def from_pretrained(
        cls: type[Z],
        repo_id: str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> Z:
        """Read an index from a dataset repository of the Hub, or from the cache if the Hub cannot be reached.

        Every file's SHA-256 is compared with the manifest.

        Parameters
        ----------
        repo_id, revision, token, cache_dir, timeout
            As for :meth:`~hf_task2vec.embedding.task_embedding.TaskEmbedding.from_pretrained`.

        Raises
        ------
        HubError
            The repository or a file cannot be had, or arrived damaged.
        ZooIndexError
            What is there is no index, or one of another version.
        """
        from hf_task2vec.sharing import pull_index

        session = HubSession(repo_id, revision=revision, token=token, timeout=timeout)
        return cast("Z", cast("type[ZooIndex]", cls).load(pull_index(session, cache_dir)))
