"""What people call the datasets that the tasks of an index are made of."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_task2vec.zoo.schema import TaskRow

#: What the Hub or its users call tasks of the index, lower case and without other signs.
_OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("oxfordiiitpet", "oxfordiiitpets", "oxfordpets", "oxfordpet"), "pets"),
        **dict.fromkeys(("stanfordcars", "stanfordcar"), "cars"),
        **dict.fromkeys(("oxfordflowers", "oxfordflowers102", "oxford102flowers"), "flowers102"),
        **dict.fromkeys(("imagenet", "imagenet1k", "ilsvrc2012"), "imagenet1k"),
        **dict.fromkeys(("inaturalist2018", "inaturalist18"), "inat2018"),
        **dict.fromkeys(("patchcamelyon", "pcam"), "pcam"),
        "stanforddogs": "dogs",
        "fgvcaircraft": "aircraft",
    }
)
#: Flag of tasks that cards of the Hub have made: what data they are only these know, so no other names lead to them.
NAMED_BY_CARD = "named_by_card"
# Datasets that have moved on the Hub, by their new ids.
_MOVED: Mapping[str, str] = MappingProxyType(
    {"AI-Lab-Makerere/beans": "beans", "microsoft/cats_vs_dogs": "cats_vs_dogs"}
)
# Tasks of the index whose names anybody may give to other data.
_COMMON_NAMES = frozenset({"cars", "dogs", "pets", "fungi", "plankton", "newt"})


def plain(name: str) -> str:
    """Return what two ways of writing a dataset's name share: of ``"ILSVRC/imagenet-1k"`` ``"imagenet1k"``."""
    return "".join(c for c in name.rpartition("/")[2].lower() if c.isalnum())


class TaskNames:
    """Tells which task of an index a dataset is, by its name.

    Parameters
    ----------
    tasks
        The rows of ``tasks.csv`` by name.
    """

    def __init__(self, tasks: Mapping[str, TaskRow]) -> None:
        self._known = (
            {plain(name): name for name, row in tasks.items() if NAMED_BY_CARD not in row.flags}
            | {name: task for name, task in _OTHER_NAMES.items() if task in tasks}
            | {row.source: name for name, row in tasks.items() if row.source}
        )

    def find(self, *names: str) -> str | None:
        """Return the task that one of these names calls: ids on the Hub, or names as `plain` gives them."""
        return next((self._known[name] for name in names if name in self._known and name not in _COMMON_NAMES), None)


def current_id(dataset: str) -> str:
    """Return by what name the index knows a dataset of the Hub that has moved."""
    return _MOVED.get(dataset, dataset)
