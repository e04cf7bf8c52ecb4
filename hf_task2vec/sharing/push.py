"""Embeddings and indexes to the Hub: one commit, or one pull request, with the card that goes with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import HubConflictError, HubError, HubNotFoundError, HubUnavailableError
from hf_task2vec.hub import REQUEST_TIMEOUT, HubSession
from hf_task2vec.sharing.cards import TAG, card_metadata, embedding_card, index_card
from hf_task2vec.sharing.pull import EMBEDDING
from hf_task2vec.zoo import MANIFEST

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, DatasetInfo

    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.zoo import ZooIndex

CARD = "README.md"
_IN_A_DATASET = (
    "A Task2Vec embedding of this dataset (https://arxiv.org/abs/1902.03545): a vector that says what the task is "
    "like, to be read by `TaskEmbedding.from_pretrained` of hf_task2vec and compared with other tasks "
    "without their images. With the tag `task2vec` in the card, searches find it."
)


@dataclass(frozen=True)
class Pushed:
    """What was pushed."""

    url: str  # of the pull request or, without one, of the repository
    repo_id: str
    files: Mapping[str, int]  # path in the repository -> bytes
    deleted: tuple[str, ...]  # files of an older index
    created: bool  # the repository is new
    commit: str
    pull_request: str | None

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class _Push:
    """One commit to a dataset repository; `card` makes the new card from the metadata of the one that is there.

    `held` is what that one must say, so that nothing of somebody else's, or of another task, is overwritten.
    """

    session: HubSession
    files: Mapping[str, bytes]
    card: Callable[[dict[str, Any]], str] | None
    held: Mapping[str, str]
    title: str
    private: bool | None
    create_pr: bool
    description: str = "Pushed with hf_task2vec."

    def run(self, *, again: bool = True) -> Pushed:
        """Commit; once more from the start if somebody else's commit came first."""
        session = self.session
        info, created = self._repository()
        present = {sibling.rfilename for sibling in info.siblings or ()}
        files, old = dict(self.files), set()
        if self.card is not None:
            files[CARD] = self.card(self._own_metadata(info) if CARD in present else {}).encode()
        if MANIFEST in present & files.keys():
            old = self._files_of_index(info) & present
        try:
            commit = self._commit(files, old - files.keys(), info)
        except HubConflictError:
            if again:
                return self.run(again=False)
            raise
        return Pushed(
            url=commit.pr_url or session.url,
            repo_id=session.repo_id,
            files={name: len(data) for name, data in files.items()},
            deleted=tuple(sorted(old - files.keys())),
            created=created,
            commit=commit.oid,
            pull_request=commit.pr_url,
        )

    def _repository(self) -> tuple[DatasetInfo, bool]:
        """Return what the Hub says of the branch, and whether the repository had to be created."""
        session, api, created = self.session, self.session.api, False
        if self.create_pr and session.revision is not None:
            raise HubError("a pull request is made to the main branch: pass create_pr=True or revision=…, not both")
        try:
            info = self._info()
        except HubNotFoundError:
            if self.create_pr:
                raise HubNotFoundError(
                    f"no {session.place} on {api.endpoint} (or the token has no access to it); a pull request needs an "
                    "existing one. Check the spelling, or leave create_pr out to create it"
                ) from None
            options: dict[str, Any] = {"repo_type": "dataset", "private": self.private, "exist_ok": True}
            session.call("creating", api.create_repo, session.repo_id, limit=REQUEST_TIMEOUT, **options)
            info, created = self._info(), True
        if self.private and info.private is False:
            raise HubConflictError(
                f"{session.place} exists and is public, but private=True (--private) was asked for. Make it private in "
                "its settings first, or push to another one"
            )
        if session.revision is None:
            return info, created
        if not session.revision.startswith("refs/"):
            options = {"branch": session.revision, "repo_type": "dataset", "exist_ok": True}
            session.call("creating the branch", api.create_branch, session.repo_id, limit=REQUEST_TIMEOUT, **options)
        return self._info(session.revision), created

    def _info(self, revision: str | None = None) -> DatasetInfo:
        session = self.session
        return session.call(
            "looking at files", session.api.dataset_info, session.repo_id, revision=revision, limit=REQUEST_TIMEOUT
        )

    def _own_metadata(self, info: DatasetInfo) -> dict[str, Any]:
        """Return the metadata of the card that is there; refuse a repository of something else."""
        card = self.session.download(CARD, revision=info.sha)
        metadata, place = card_metadata(card.read_text(encoding="utf-8", errors="replace")), self.session.place
        found = metadata.get(TAG)
        if TAG not in (metadata.get("tags") or ()) or not isinstance(found, dict):
            beside = ", or, if it is that of the dataset, with into_dataset=True (--into-dataset)"
            raise HubConflictError(
                f"{place} holds something else: its card was not written by hf_task2vec and would be overwritten. Push "
                f"to a repository of its own{beside if 'dataset' in self.held else ''}"
            )
        for key, value in self.held.items():
            if found.get(key) != value:
                raise HubConflictError(
                    f"the {key} in {place} is {found.get(key)!r}, and this one is {value!r}; push to another "
                    "repository, one for each"
                )
        return metadata

    def _files_of_index(self, info: DatasetInfo) -> set[str]:
        """Return the files of the index that is there, as far as its manifest can be read."""
        try:
            return set(json.loads(self.session.download(MANIFEST, revision=info.sha).read_bytes())["files"])
        except (ValueError, KeyError, TypeError):
            return set()

    def _commit(self, files: Mapping[str, bytes], deleted: Iterable[str], info: DatasetInfo) -> CommitInfo:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete
        from huggingface_hub.errors import HfHubHTTPError

        session = self.session

        def commit() -> CommitInfo:  # the client changes the operations, so each try has its own
            return session.api.create_commit(
                session.repo_id,
                [
                    *(CommitOperationAdd(name, data) for name, data in files.items()),
                    *(CommitOperationDelete(name) for name in deleted),
                ],
                commit_message=self.title,
                commit_description=self.description,
                repo_type="dataset",
                revision=session.revision,
                create_pr=self.create_pr,
                parent_commit=None if self.create_pr else info.sha,
            )

        try:
            if self.create_pr:  # once: tried again after an answer that was lost, there would be two
                return session.call("opening a pull request", commit, attempts=1)
            return session.call("committing", commit)
        except HubUnavailableError as error:
            if isinstance(error.__cause__, HfHubHTTPError):
                raise
            raise HubUnavailableError(f"{error}. It may have been done all the same: see {session.url}") from error


def push_embedding(
    embedding: TaskEmbedding,
    session: HubSession,
    *,
    private: bool | None,
    create_pr: bool | None,
    into_dataset: bool | None,
    license: str | None,  # noqa: A002 (the card's own word)
    index: ZooIndex | None,
    message: str | None,
) -> Pushed:
    """Push an embedding; see ``TaskEmbedding.push_to_hub``."""
    from hf_task2vec.zoo import ZooIndex

    title = message or f"Add Task2Vec embedding by {embedding.probe['name']}"
    files = {EMBEDDING: embedding.without_file_names().to_bytes()}
    if embedding.task.get("dataset") == session.repo_id if into_dataset is None else into_dataset:
        propose = session.revision is None if create_pr is None else create_pr
        return _Push(session, files, None, {}, title, private, propose, _IN_A_DATASET).run()
    card = partial(embedding_card, session.repo_id, embedding, index or ZooIndex.load(), license)
    held = {"kind": "embedding", "dataset": embedding.name}
    return _Push(session, files, card, held, title, private, bool(create_pr)).run()


def push_index(
    index: ZooIndex,
    session: HubSession,
    *,
    private: bool | None,
    create_pr: bool,
    license: str | None,  # noqa: A002 (the card's own word)
    message: str | None,
) -> Pushed:
    """Push an index; see ``ZooIndex.push_to_hub``."""
    title = message or f"Zoo index of {index.created} ({len(index.rows['scores'])} scores)"
    card = partial(index_card, session.repo_id, index, license)
    return _Push(session, index.contents(), card, {"kind": "index"}, title, private, create_pr).run()
