"""The commands that share embeddings and indexes on the Hub: push, pull, search."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hf_task2vec.cli.command import Settings, command
from hf_task2vec.cli.console import Column, Report, facts_report
from hf_task2vec.cli.inputs import load_embeddings, load_index
from hf_task2vec.cli.options import given, hub_options, kind_option
from hf_task2vec.errors import EmbeddingError
from hf_task2vec.selection import known

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.sharing import SharedTask
    from hf_task2vec.zoo import ZooIndex


@command(short_help="Share an embedding or an index on the Hub.")
@click.argument("path", type=click.Path())
@click.argument("repo_id", metavar="ORG/NAME")
@click.option("--private", is_flag=True, default=None, help="Make a new repository private.")
@click.option("--create-pr", is_flag=True, default=None, help="Open a pull request instead of committing.")
@click.option("--revision", metavar="BRANCH", help="Branch to commit to, made if there is none [default: main].")
@click.option(
    "--into-dataset",
    is_flag=True,
    default=None,
    help="ORG/NAME is the dataset itself: add the embedding by a pull request, leave its card alone.",
)
@click.option("--license", metavar="ID", help="Licence to name in the card.")
@click.option("--message", metavar="TEXT", help="Message of the commit, or title of the pull request.")
@hub_options
def push(path: str, repo_id: str, into_dataset: bool | None, **options: Any) -> Report:
    """Share the embedding or index at PATH on the Hub, in the dataset repository ORG/NAME.

    PATH is a folder or file that `embed` or `pull` wrote, or the folder of an index ("shipped": the one that comes
    with the package). The repository is made if there is none, and gets a card.

    \b
    Examples:
      hf-task2vec embed org/data -o data-embedding
      hf-task2vec push data-embedding me/data-task2vec
      hf-task2vec push data-embedding org/data --into-dataset  # a pull request
    """  # noqa: D301 (click wants the control character)
    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.tasks import stage

    shared = _load(path)
    arguments = given(options)
    if into_dataset is not None:
        arguments["into_dataset"] = into_dataset
        if not isinstance(shared, TaskEmbedding):
            raise click.UsageError("--into-dataset is for an embedding; this is an index.")
    with stage("uploading to %s", repo_id):
        pushed = shared.push_to_hub(repo_id, **arguments)
    return facts_report(asdict(pushed), [pushed.url])


@command(short_help="Get an embedding or an index from the Hub.")
@click.argument("repo_id", metavar="ORG/NAME")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="File (.safetensors) or folder to write [default: NAME.safetensors; for an index the folder NAME].",
)
@click.option("--revision", metavar="REVISION", help="Branch, tag or commit.")
@click.option("--overwrite", is_flag=True, help="Replace what is at the output already.")
@hub_options
def pull(repo_id: str, output: Path | None, overwrite: bool, **options: Any) -> Report:
    """Write the embedding or index in the Hub's dataset repository ORG/NAME to a file or folder.

    The checksums of an index are compared. What was pulled once can be pulled again with --offline.

    \b
    Examples:
      hf-task2vec pull me/data-task2vec
      hf-task2vec pull me/my-index -o my-index --revision v1
    """  # noqa: D301 (click wants the control character)
    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.hub import HubSession
    from hf_task2vec.sharing.pull import pull as pull_from_hub
    from hf_task2vec.tasks import stage

    def check_free(path: Path) -> Path:
        if not overwrite and path.exists():
            raise EmbeddingError(f"{path} exists already; pass --overwrite, or another place with -o")
        return path

    if output is not None:
        check_free(output)  # before anything is downloaded
    name = repo_id.rpartition("/")[2]
    with stage("downloading %s", repo_id):
        shared = pull_from_hub(HubSession(repo_id, **given(options)))
    if isinstance(shared, TaskEmbedding):
        default, facts = f"{name}.safetensors", shared.describe()
    else:
        default, facts = name, shared.info()
    target = output or check_free(Path(default))
    shared.save(target)
    return facts_report({"repo_id": repo_id, **facts, "path": str(target)}, [str(target)])


@command(short_help="List embeddings that are shared on the Hub.")
@click.argument("text", required=False)
@click.option(
    "--near",
    type=click.Path(),
    metavar="TASK",
    help="Rank by distance to this: a folder or file of `embed`, a task of the index, or a repository on the Hub.",
)
@kind_option
@click.option("--probe", metavar="CHECKPOINT", help="Only embeddings by this probe.")
@click.option("--author", metavar="NAME", help="Only repositories of this user or organization.")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", default=100, show_default=True, help="Repositories at most."
)
@hub_options
@click.pass_obj
def search(settings: Settings, /, text: str | None, near: str | None, **options: Any) -> Report:
    """List the repositories of the Hub that share embeddings (tag task2vec), with TEXT in their ids if given.

    \b
    Examples:
      hf-task2vec search flowers
      hf-task2vec search --near ./photos-embedding     # the most like yours first
    """  # noqa: D301 (click wants the control character)
    from hf_task2vec.sharing import search_hub
    from hf_task2vec.tasks import bar, say

    arguments = given(options)
    # An index has its own probe; --probe says which embeddings of the Hub are looked at.
    of_hub = ("token", "timeout") if "/" in (near or "") else ()
    hub = {name: arguments[name] for name in of_hub if name in arguments}
    target = None if near is None else load_embeddings([near], **hub)[0]
    say("searching the Hub")
    with bar("comparing", "task", None, shown=target is not None and settings.progress) as counter:
        found = search_hub(text, near=target, on_done=counter.update, **arguments)
    return _search_report(found, target)


def _load(path: str) -> TaskEmbedding | ZooIndex:
    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.zoo import MANIFEST

    is_index = path == "shipped" or (Path(path) / MANIFEST).is_file()
    return load_index(path) if is_index else TaskEmbedding.load(path)


def _search_report(found: list[SharedTask], near: TaskEmbedding | None) -> Report:
    columns = [
        Column("repository", lambda shared: shared.repo_id, False),
        Column("distance", lambda shared: "–" if shared.distance is None else f"{shared.distance:.4f}"),
        Column("task", lambda shared: "(index)" if shared.kind == "index" else shared.dataset or "?", False),
        Column("classes", lambda shared: known(shared.n_classes, "{}")),
        Column("probe", lambda shared: shared.probe or "?", False),
        Column("changed", lambda shared: shared.last_modified or "?", False),
    ]
    notes = [f"{len(found)} repositories of the Hub are tagged task2vec and fit."]
    if near is None:
        del columns[1]
    notes += [f"{shared.repo_id}: {shared.problem}" for shared in found if shared.problem]
    document = {"near": None if near is None else near.name, "repositories": [shared.to_dict() for shared in found]}
    return Report(document, [shared.repo_id for shared in found], found, columns, notes)
