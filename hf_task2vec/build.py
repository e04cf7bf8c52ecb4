"""Build an index: measure checkpoints on tasks, embed the tasks, and put all of it into one folder."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hf_task2vec.build_plan import DEFAULT_SAMPLES, Build, BuildReport
from hf_task2vec.bundled import DEFAULT_PROBE
from hf_task2vec.ray_backend import Cluster
from hf_task2vec.sweep_inputs import Checkpoint, CheckpointInput, TaskInput, TaskSpec
from hf_task2vec.zoo import ZooIndex

__all__ = ["Build", "BuildReport", "Checkpoint", "Cluster", "TaskSpec", "build_index"]


def build_index(
    out: str | os.PathLike[str],
    tasks: Sequence[TaskInput],
    checkpoints: Sequence[CheckpointInput],
    *,
    base: ZooIndex | str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    max_samples: int | None = DEFAULT_SAMPLES,
    seed: int = 0,
    embed: bool = True,
    probe: str = DEFAULT_PROBE,
    keep_features: bool = False,
    retry_failed: bool = False,
    device: str | None = None,
    batch_size: int | None = None,
    token: str | None = None,
    cluster: Cluster | None = None,
    progress: bool = False,
) -> BuildReport:
    """Measure checkpoints on tasks, embed the tasks, and write an index that `select` can use.

    Every pair is a cell: frozen features are extracted once, and evaluated by a linear probe (leave-one-out over all
    images, training and test split pooled), with its standard error. Each cell
    is stored as soon as it is done, under a key of the dataset's revision, the checkpoint's revision and the settings:
    a build that was killed goes on where it was, and one that is complete measures nothing. A cell that cannot be
    measured is recorded with the reason, and the others go on. The same measurements give the same bytes.

    Parameters
    ----------
    out
        Folder of the index.
    tasks
        Datasets (Hub ids, folders, ``"sklearn:digits"``), ``.csv`` files with one a row, or
        :class:`~hf_task2vec.sweep_inputs.TaskSpec`.
    checkpoints
        Hub ids (with ``@revision`` if wanted), folders, ``.txt`` files with one a line, or
        :class:`~hf_task2vec.sweep_inputs.Checkpoint`.
    base
        Index to extend. What it says of tasks and checkpoints stays; a score measured again is replaced. None starts
        a new one.
    cache
        Folder of the cells; by default ``sweeps`` in :func:`~hf_task2vec.files.cache_dir`. The report ``cells.csv``
        is written there.
    max_samples
        Images of each split, drawn at random with the classes balanced; None for all. The evaluation needs time and
        memory of the order of their number's cube and square.
    seed
        Seed of the samples.
    embed
        Embed each task that the base has no embedding of, with the base's probe and 256 images of the training split.
    probe
        Probe of a new index.
    keep_features
        Keep the features in the cache too, 4 bytes a number.
    retry_failed
        Try cells again that failed before. Those that failed because the Hub could not be reached always are.
    device, batch_size
        Where and in which portions features are extracted; None takes a GPU if there is one, and what suits it.
    token
        Hub token.
    cluster
        Work on a Ray cluster instead of here.
    progress
        Show a bar with the time left on stderr.

    Returns
    -------
    BuildReport

    Raises
    ------
    TaskError, ProbeError, HubError
        No task or no checkpoint can be used at all, two have the same name, or an argument is out of range.
    ZooIndexError, ProbeMismatchError
        The base cannot be extended, or the index in `out` holds what would be lost.
    DistributedError
        The cluster cannot be used.
    """
    build = Build(
        out,
        tasks,
        checkpoints,
        base=base,
        cache=cache,
        max_samples=max_samples,
        seed=seed,
        embed=embed,
        probe=probe,
        keep_features=keep_features,
        retry_failed=retry_failed,
        device=device,
        batch_size=batch_size,
        token=token,
        cluster=cluster,
    )
    return build.run(progress=progress)
