"""One selection, in a process of its own: ``python worker.py FOLDER < job.json``.

The page starts it for every request, so that what a visitor's data make of it (time, memory, a crash of a decoder) ends
with it. It writes one JSON object a line: ``stage`` and ``detail`` as work goes on, then ``result`` or ``error``. The
progress bars of the package go to standard error, in the form that `jobs.py` asks for.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from archive import unpack
from jobs import Job

from hf_task2vec.errors import Task2VecError

if TYPE_CHECKING:
    from hf_task2vec.selection.ranking import Ranking
    from hf_task2vec.tasks.task import Task


def run(job: Job, folder: Path, tell: Any) -> dict[str, Any]:
    """Rank for one job and leave ``ranking.json``, ``ranking.csv`` and ``report.html`` in `folder`.

    Parameters
    ----------
    job
        What to rank for.
    folder
        Private to this job.
    tell
        Called with the name of each stage and what is known by then.

    Returns
    -------
    dict
        The ranking as a document, with ``explanation``.
    """
    dataset = job.dataset
    if job.archive is not None:
        tell("unpacking", "")
        target = folder / "images" / job.title
        target.mkdir(parents=True)
        found = unpack(Path(job.archive), target)
        left_out = f", {found.ignored:,} other files left out" if found.ignored else ""
        tell("drawing", f"{found.images:,} images in {found.classes:,} folders{left_out}")
        dataset = str(target)
    else:
        tell("drawing", "")
    task = _draw(job, dataset)
    tell("embedding", f"{len(task):,} of {task.n_rows:,} images, {task.num_classes:,} classes")
    ranking = _rank(job, task)
    tell("writing", "")
    (folder / "ranking.json").write_text(ranking.to_json(), encoding="utf-8")
    ranking.to_pandas().to_csv(folder / "ranking.csv")
    # Of a dataset on the Hub no image is shown: its rows may name files of this machine.
    ranking.report(folder / "report.html", images=not job.is_remote)
    return {**ranking.to_dict(), "explanation": str(ranking.explain())}


def _draw(job: Job, dataset: str) -> Task:
    from hf_task2vec.tasks.task import Task

    where: dict[str, Any] = {}
    if job.is_remote:
        # `streaming`: what cannot be read in parts is read row by row, never downloaded as a whole.
        where = {"name": job.config, "split": job.split, "revision": job.revision, "streaming": True, "token": False}
    return Task.from_dataset(dataset, max_samples=job.max_samples, **where)


def _rank(job: Job, task: Task) -> Ranking:
    from hf_task2vec.selection.select import select_backbone

    return select_backbone(
        task,
        max_params=job.max_params,
        licenses=job.licenses or None,
        top_k=job.top_k,
        cache=False,
        progress=True,
    )


@contextlib.contextmanager
def _private_stdout() -> Any:
    """Yield standard output for us alone: what others print goes to standard error."""
    stdout = open(os.dup(1), "w", encoding="utf-8")  # noqa: SIM115
    os.dup2(2, 1)
    with stdout:
        yield stdout


def _limit_memory(limit: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # no such limit on this system, or already a lower one
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Run the job on standard input."""
    job = Job.of_json(sys.stdin.read())
    _limit_memory(job.memory)
    logging.getLogger("hf_task2vec").addHandler(logging.NullHandler())
    with _private_stdout() as out:
        _answer(job, out)


def _answer(job: Job, out: TextIO) -> None:
    def write(**message: Any) -> None:
        out.write(json.dumps(message, allow_nan=False) + "\n")
        out.flush()

    try:
        result = run(job, Path(sys.argv[1]), lambda stage, detail: write(stage=stage, detail=detail))
        write(result=result)
    except Task2VecError as error:
        write(error=" ".join(str(error).split()))
    except MemoryError:
        write(error="The images need more memory than this page has. Take fewer or smaller ones.")
    except Exception:  # noqa: BLE001 (told to the log only: the text may name files of this machine)
        traceback.print_exc()
        write(error=None)


if __name__ == "__main__":
    main()
