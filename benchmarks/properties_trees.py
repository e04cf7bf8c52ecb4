"""Class trees: what groups of classes the datasets' makers or WordNet see, and how far apart they are.

`CIFAR100` are the superclasses of CIFAR-100 (Krizhevsky 2009), `TINY_IMAGENET` themes of Tiny ImageNet's classes. The
branches above them follow WordNet's hypernyms, shortened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Theme:
    """A group of classes.

    Attributes
    ----------
    path
        Branches from the root down to this theme, the root left out, such as ``("living", "animal", "mammal")``.
    classes
        Names of its classes in the dataset.
    """

    path: tuple[str, ...]
    classes: tuple[str, ...]


def tree_distances(paths: Sequence[tuple[str, ...]]) -> NDArray[np.float64]:
    """Number of edges between leaves that hang below the branches `paths`, shape (n, n)."""
    n = len(paths)
    distance = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                shared = 0
                for a, b in zip(paths[i], paths[j], strict=False):
                    if a != b:
                        break
                    shared += 1
                distance[i, j] = (len(paths[i]) - shared) + (len(paths[j]) - shared) + 2
    return distance


def _themes(table: Mapping[str, tuple[str, str]]) -> dict[str, Theme]:
    return {
        name: Theme(tuple(path.split("/")), tuple(part.strip() for part in classes.split(",")))
        for name, (path, classes) in table.items()
    }


CIFAR100 = _themes(
    {
        "aquatic mammals": ("living/animal/vertebrate/mammal", "beaver, dolphin, otter, seal, whale"),
        "large carnivores": ("living/animal/vertebrate/mammal/land", "bear, leopard, lion, tiger, wolf"),
        "large omnivores": (
            "living/animal/vertebrate/mammal/land",
            "camel, cattle, chimpanzee, elephant, kangaroo",
        ),
        "medium mammals": ("living/animal/vertebrate/mammal/land", "fox, porcupine, possum, raccoon, skunk"),
        "small mammals": ("living/animal/vertebrate/mammal/land", "hamster, mouse, rabbit, shrew, squirrel"),
        "fish": ("living/animal/vertebrate", "aquarium fish, flatfish, ray, shark, trout"),
        "reptiles": ("living/animal/vertebrate", "crocodile, dinosaur, lizard, snake, turtle"),
        "insects": ("living/animal/invertebrate", "bee, beetle, butterfly, caterpillar, cockroach"),
        "other invertebrates": ("living/animal/invertebrate", "crab, lobster, snail, spider, worm"),
        "flowers": ("living/plant", "orchid, poppy, rose, sunflower, tulip"),
        "fruit, vegetables": ("living/plant", "apple, mushroom, orange, pear, sweet pepper"),
        "trees": ("living/plant", "maple tree, oak tree, palm tree, pine tree, willow tree"),
        "food containers": ("thing/instrumentality/indoor", "bottle, bowl, can, cup, plate"),
        "electrical devices": ("thing/instrumentality/indoor", "clock, keyboard, lamp, telephone, television"),
        "furniture": ("thing/instrumentality/indoor", "bed, chair, couch, table, wardrobe"),
        "vehicles 1": ("thing/instrumentality/vehicle", "bicycle, bus, motorcycle, pickup truck, train"),
        "vehicles 2": ("thing/instrumentality/vehicle", "lawn mower, rocket, streetcar, tank, tractor"),
        "man-made outdoors": ("thing/outdoors", "bridge, castle, house, road, skyscraper"),
        "natural outdoors": ("thing/outdoors", "cloud, forest, mountain, plain, sea"),
    }
)

TINY_IMAGENET = _themes(
    {
        "dogs": (
            "living/animal/vertebrate/mammal/carnivore",
            "Chihuahua, Yorkshire terrier, golden retriever, Labrador retriever, German shepherd, standard poodle",
        ),
        "cats": ("living/animal/vertebrate/mammal/carnivore", "tabby, Persian cat, Egyptian cat, cougar, lion"),
        "hoofed, primates": ("living/animal/vertebrate/mammal", "hog, ox, gazelle, chimpanzee, baboon"),
        "birds, reptiles, fish": (
            "living/animal/vertebrate",
            "goldfish, tailed frog, American alligator, goose, black stork",
        ),
        "arachnids": ("living/animal/invertebrate/arthropod", "scorpion, black widow, tarantula, centipede"),
        "flying insects": (
            "living/animal/invertebrate/arthropod/insect",
            "fly, bee, dragonfly, monarch, sulphur butterfly",
        ),
        "other insects": (
            "living/animal/invertebrate/arthropod/insect",
            "ladybug, grasshopper, walking stick, cockroach, mantis",
        ),
        "molluscs, lobsters": ("living/animal/invertebrate", "snail, slug, American lobster, spiny lobster"),
        "fruit, vegetables": (
            "thing/food",
            "cauliflower, bell pepper, mushroom, orange, lemon, banana, pomegranate",
        ),
        "dishes": (
            "thing/food",
            "guacamole, ice cream, ice lolly, pretzel, mashed potato, meat loaf, pizza, potpie",
        ),
        "clothing": (
            "thing/artifact/covering",
            "academic gown, apron, bow tie, cardigan, kimono, military uniform, poncho, sandal, sombrero",
        ),
        "vehicles": (
            "thing/artifact/instrumentality",
            "bullet train, freight car, gondola, lifeboat, moving van, tractor, trolleybus",
        ),
        "buildings, bridges": (
            "thing/artifact/structure",
            "barn, cliff dwelling, steel arch bridge, suspension bridge, triumphal arch, water tower",
        ),
        "devices": (
            "thing/artifact/instrumentality",
            "cash machine, CD player, computer keyboard, parking meter, remote control, stopwatch, refrigerator",
        ),
        "vessels, tools": (
            "thing/artifact/instrumentality",
            "beaker, beer bottle, bucket, frying pan, pill bottle, plunger, syringe, wooden spoon",
        ),
        "landscapes": ("thing/nature", "alp, cliff, coral reef, seashore"),
    }
)
