"""The map of the shipped index's embedded tasks, made once for all tests."""

from __future__ import annotations

import functools

from hf_task2vec.report.task_map import TaskMap, map_tasks
from hf_task2vec.zoo.index import ZooIndex


@functools.cache
def shipped_map() -> TaskMap:
    """Return it, with the tasks' domains."""
    index = ZooIndex.load()
    table = index.embeddings
    domain = index.tasks.set_index("task")["domain"]
    return map_tasks(list(table), table.names, list(domain[list(table.names)]))
