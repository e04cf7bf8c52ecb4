"""The paper's own protocol: choose among experts, networks fine-tuned on the domain of some other task.

    python -m benchmarks.selection.experts [--cache DIR] [--epochs 6]

From one ImageNet checkpoint (MobileNetV2 0.35, 128 px) fourteen experts are fine-tuned, two for each of seven domains,
each on about half of the domain's shared tasks. An expert's weights are the mean of the fine-tuned and the ImageNet
ones (Wortsman et al. 2022, arXiv 2109.01903): a few hundred images a task otherwise cost more in general features than
they teach. Every expert and the checkpoint itself are measured on every task as frozen features (closed-form
leave-one-out linear probe over all images). Each task is then predicted from the others, among the experts that were
not trained on it or on a near duplicate of it: chance, always the ImageNet checkpoint, the expert whose training tasks
are nearest (symmetric and asymmetric distance of the Task2Vec embeddings of the index), Model2Vec, and the trained
metric. Relative error increase over the best expert, as in table 2 of Achille et al. 2019. Raw output:
results/experts.json and experts.csv. Resumable: networks and cells are kept in `--cache`; without it, only what
experts.csv holds is judged.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from benchmarks.common import RESULTS, ROOT, TASKS, parser, records, task_names, write
from benchmarks.index.local_checkpoints import load
from benchmarks.selection.baselines import Model2Vec
from benchmarks.selection.fine_tune import shifted
from hf_task2vec import RankingMetric, Task, ZooIndex
from hf_task2vec.embedding.distance import asymmetric, symmetric
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.files import atomic_path, write_json
from hf_task2vec.metric.evaluation import Case, judge, near_duplicates, summarise
from hf_task2vec.metric.observations import (
    CHECKPOINT_FACTS,
    REFERENCE_SOURCE,
    CheckpointFeatures,
    Observations,
    logit,
)
from hf_task2vec.metric.task_space import KINDS, TaskSpace
from hf_task2vec.metric.training import fit_parameters
from hf_task2vec.probes.scores import ridge_leave_one_out

START = "mobilenetv2_035.keras_in1k"
IMAGENET = "imagenet"
SIDE = 128
OWN_TASKS = "experts/own_tasks"
MIX = 0.5  # share of the fine-tuned weights
#: Two experts a domain, so that a task of the domain always has one that was not trained on it.
EXPERTS = {
    "characters_a": ("mnist", "notmnist", "omniglot"),
    "characters_b": ("kannada_mnist", "optdigits_8x8", "sign_language_digits"),
    "medical_a": ("brain_tumor_mri", "chest_xray_pneumonia", "pbc_blood_cells"),
    "medical_b": ("busi_breast_ultrasound", "covid_chest_xray", "ham10000"),
    "materials_a": ("neu_steel_defects", "dtd_10"),
    "materials_b": ("magnetic_tile_defects", "trashnet"),
    "animals_a": ("cats_vs_dogs", "monkeys10", "tin_insects_spiders"),
    "animals_b": ("hymenoptera", "tin_dogs_cats"),
    "art_a": ("pacs_art_painting", "pacs_cartoon", "emoji_categories"),
    "art_b": ("openclipart", "shape_cue_conflict"),
    "scenes_a": ("aid", "weather5"),
    "scenes_b": ("scene15", "tiny_imagenet_100"),
    "food_and_things_a": ("food101_64px", "clothing_small", "cifar10"),
    "food_and_things_b": ("grocery_store", "tin_food", "fashion_mnist"),
}


@cache
def pixels(name: str) -> tuple[torch.Tensor, np.ndarray, int]:
    """All images of a task as uint8, shape (N, 3, 128, 128), their labels, and how many are for training."""
    from PIL import Image

    images, labels, counts = [], [], []
    for split in ("train", "test"):
        task = Task.from_dataset(TASKS / name, split=split, max_samples=None)
        for i in range(len(task)):
            image = task.images[i].convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            images.append(np.asarray(image).transpose(2, 0, 1))
        labels.append(task.labels)
        counts.append(len(task))
    return torch.from_numpy(np.stack(images)), np.concatenate(labels), counts[0]


def normalised(images: torch.Tensor) -> torch.Tensor:
    """As the checkpoint was trained: to [-1, 1]."""
    return (images.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)


def start_network() -> nn.Module:
    """The ImageNet checkpoint as a feature extractor."""
    module: nn.Module = load(START).module
    return module.to(memory_format=torch.channels_last)


def train(name: str, epochs: int, *, batch: int = 32, rate: float = 5e-4) -> nn.Module:
    """Fine-tune one expert on the training images of its tasks, with one linear head a task."""
    torch.manual_seed(0)
    network = start_network().requires_grad_(True).eval()  # BatchNorm keeps its statistics
    rng = np.random.default_rng(0)
    data = {}
    for task in EXPERTS[name]:
        images, labels, n = pixels(task)
        data[task] = images[:n], torch.from_numpy(labels[:n])
    heads = nn.ModuleDict({task: nn.Linear(1280, int(labels.max()) + 1) for task, (_, labels) in data.items()})
    optimizer = torch.optim.AdamW([*network.parameters(), *heads.parameters()], lr=rate, weight_decay=1e-4)
    batches = [
        (task, start) for task, (_, labels) in data.items() for start in range(0, len(labels) - batch + 1, batch)
    ]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * len(batches))
    for _ in range(epochs):
        orders = {task: rng.permutation(len(labels)) for task, (_, labels) in data.items()}
        for i in rng.permutation(len(batches)):
            task, start = batches[i]
            rows = orders[task][start : start + batch]
            images = shifted(data[task][0][rows].float(), rng, pad=10)
            loss = nn.functional.cross_entropy(heads[task](network(normalised(images))), data[task][1][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.requires_grad_(False)


def networks(folder: Path, epochs: int) -> dict[str, nn.Module]:
    """All experts, trained or read, and the ImageNet checkpoint."""
    start = start_network().state_dict()
    found: dict[str, nn.Module] = {IMAGENET: start_network()}
    for name in tqdm(EXPERTS, desc="experts", unit="expert"):
        path = folder / f"{name}.safetensors"
        if not path.exists():
            network = train(name, epochs)
            with atomic_path(path) as temporary:
                save_file({k: v.contiguous() for k, v in network.state_dict().items()}, temporary)
        network = start_network()
        tuned = load_file(path)
        mixed = {k: torch.lerp(start[k], v, MIX) if v.is_floating_point() else v for k, v in tuned.items()}
        network.load_state_dict(mixed)
        found[name] = network.eval().requires_grad_(False)
    return found


def measure(folder: Path, nets: dict[str, nn.Module]) -> list[dict[str, Any]]:
    """Measure every network on every task."""
    rows = []
    frozen = {}
    for task in tqdm(task_names(), desc="measuring", unit="task"):
        path = folder / f"{task}.json"
        if not path.exists():
            images, labels, _ = pixels(task)
            cells = []
            for name, network in nets.items():
                if name not in frozen:
                    frozen[name] = torch.jit.freeze(torch.jit.trace(network, normalised(images[:2])))
                with torch.inference_mode():
                    z = torch.cat([frozen[name](normalised(part)) for part in images.split(16)]).double().numpy()
                result = ridge_leave_one_out(z, labels)
                cells.append({"task": task, "expert": name, "n": len(z), "linear": float(result.mean())})
            write_json(path, cells)
            pixels.cache_clear()
        rows += json.loads(path.read_text())
    return rows


def evaluate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The paper's table."""
    index = ZooIndex.load(ROOT / "zoo_index")
    table, groups = index.embeddings, near_duplicates(index)
    space = TaskSpace.fit(table)
    tasks = space.of_embedding(table, table.names)
    names = [IMAGENET, *EXPERTS]
    score = np.full((len(tasks.names), len(names)), np.nan)
    n = np.ones(len(tasks.names))
    for row in rows:
        t = tasks.names.index(row["task"])
        score[t, names.index(row["expert"])], n[t] = row["linear"], row["n"]
    seen = np.array(
        [[any(groups[task] == groups[own] for own in EXPERTS.get(name, ())) for name in names] for task in tasks.names]
    )
    domain = np.unique([name.removesuffix("_a").removesuffix("_b") for name in names], return_inverse=True)[1]
    none, home = np.zeros((len(names), len(CHECKPOINT_FACTS))), np.zeros((len(names), len(KINDS)))
    facts = CheckpointFeatures(tuple(names), none, domain, home)
    # What an expert scores on its own tasks tells where it is at home: evidence of another source, never a case.
    t, c = np.nonzero(np.isfinite(score))
    smoothed = (score * n[:, None] + 0.5) / (n[:, None] + 1.0)
    data = Observations(
        tasks=tasks, checkpoints=facts, task=t, checkpoint=c, group=t, y=logit(smoothed[t, c]),
        error=(1.0 / (n[:, None] * smoothed * (1.0 - smoothed)))[t, c], source=seen[t, c].astype(np.int64),
        sources=(REFERENCE_SOURCE, OWN_TASKS), score=score[t, c], part=np.zeros(len(t), dtype=bool),
    )  # fmt: skip
    parameters, _ = fit_parameters(data, steps=60)
    values = table.values.astype(np.float64)
    predicted: dict[str, list[np.ndarray]] = {}
    cases = []
    for i, task in enumerate(tqdm(tasks.names, desc="judging", unit="task")):
        allowed = np.flatnonzero(~seen[i])
        held = [j for j, other in enumerate(tasks.names) if groups[other] == groups[task]]
        query = replace(tasks.take(np.array([i])), names=(f"query:{task}",))
        case = Case(task, query, facts.take(allowed), score[i, allowed])
        cases.append(case)
        rest = data.rows(~np.isin(data.task, held))
        fold, _ = fit_parameters(rest, parameters, steps=10)
        near = {"symmetric": np.zeros(len(allowed)), "asymmetric": np.zeros(len(allowed))}
        for k, column in enumerate(allowed):
            if names[column] == IMAGENET:  # an expert of everything: its task lies in the middle of all
                sources = [values[[j for j in range(len(values)) if j not in held]].mean(axis=0)]
            else:
                sources = [values[tasks.names.index(own)] for own in EXPERTS[names[column]]]
            near["symmetric"][k] = -symmetric(np.array(sources), values[i][None]).min()
            near["asymmetric"][k] = -asymmetric(np.array(sources), values[i][None], table.layer_sizes).min()
        found = {
            "always:imagenet": np.array([float(names[column] == IMAGENET) for column in allowed]),
            **near,
            "model2vec": Model2Vec(space, rest.rows(rest.source == 0)).predict_features(query, case.candidates).mean,
            "trained": RankingMetric(fold, space, rest).predict_features(query, case.candidates).mean,
        }
        for name, prediction in found.items():
            predicted.setdefault(name, []).append(prediction)
    judged = judge(cases, predicted)
    chance = float(np.mean([case.obtained.mean() for case in cases]))
    best = float(np.mean([case.obtained.max() for case in cases]))
    return {
        "experts": {name: list(own) for name, own in EXPERTS.items()},
        "optimal_error": 1.0 - best,
        "chance_error_increase": (1.0 - chance) / (1.0 - best) - 1.0,
        "summary": records(summarise(judged).drop(columns="share_of_gap")),
        "rows": records(judged),
    }


def main() -> None:
    """Train, measure, judge."""
    arguments = parser(__doc__)
    arguments.add_argument("--cache", type=Path, default=None)
    arguments.add_argument("--epochs", type=int, default=6)
    args = arguments.parse_args()
    if args.cache is not None:
        trained, cells = args.cache / f"networks-{args.epochs}", args.cache / f"cells-{args.epochs}"
        for folder in (trained, cells):
            folder.mkdir(parents=True, exist_ok=True)
        rows = measure(cells, networks(trained, args.epochs))
        with atomic_path(RESULTS / "experts.csv") as path, path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, ["task", "expert", "n", "linear"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    with (RESULTS / "experts.csv").open(newline="", encoding="utf-8") as handle:
        rows = [{**row, "n": int(row["n"]), "linear": float(row["linear"])} for row in csv.DictReader(handle)]
    settings = {"start": START, "side": SIDE, "epochs": args.epochs, "mix": MIX}
    document = {**settings, **evaluate(rows), "versions": library_versions()}
    write("experts", document)
    print(json.dumps(document["summary"], indent=1))


if __name__ == "__main__":
    main()
