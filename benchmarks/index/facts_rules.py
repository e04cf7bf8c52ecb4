"""Rules that turn names (timm tags, published metric remarks) into the index's vocabulary.

Every rule is a table: the first pattern that matches decides.
"""

from __future__ import annotations

import re

# (pattern on "architecture.tag", value of `pretraining`). "_ft_in1k" is the ending of most fine-tuned weights.
PRETRAINING_RULES = (
    (r"siglip.*webli_ft_in1k", "siglip_ft_in1k"),
    (r"siglip.*webli", "siglip"),
    (r"\.(clip_)?(laion|openai|merged2b|metaclip|datacomp|dfn).*in1k|\.clip_ft_in1k", "clip_ft_in1k"),
    (r"\.(laion|openai|merged2b|metaclip|datacomp|dfn)|_clip_.*\.", "clip"),
    (r"\.lvd142m", "dinov2"),
    (r"\.dino$", "dino"),
    (r"\.sa1b", "sam"),
    (r"\.(fcmae|mim_m38m|mim_in22k|m30m)_ft_in22k_in1k", "mim_ft_in21k_ft_in1k"),
    (r"^(beit|beitv2|eva)_.*\.(in22k|in1k)_ft_in22k_in1k", "mim_ft_in21k_ft_in1k"),
    (r"\.(fcmae|mae_in1k|mim_m38m|mim_in22k)_ft_in1k", "mim_ft_in1k"),
    (r"^(beit|beitv2|beit3|eva)_.*\.(in22k|in1k|indomain_in22k)_ft_in1k", "mim_ft_in1k"),
    (r"\.(fcmae|mae|mim)", "mim"),
    (r"\.seer", "ssl_web_ft_in1k"),
    (r"\.(swag|fb_wsl|fb_swsl|fb_ssl|ns_jft)", "web_ft_in1k"),
    (r"in12k", "in12k_ft_in1k"),
    (r"in2[12]k", "in21k_ft_in1k"),
    (r"dist|ssld|usi|^deit.*distilled", "in1k_distilled"),
    (r"in1k", "in1k_supervised"),
)

# (pattern on "architecture.tag", datasets seen). All that match count; a superset brings its parts along.
TRAINED_ON_RULES = (
    (r"in1k", ("imagenet1k",)),
    (r"in12k", ("imagenet12k", "imagenet1k")),
    (r"in2[12]k|ssld_stage2|bd_ssld_6m", ("imagenet1k", "imagenet21k")),
    (r"^flexivit", ("imagenet1k", "imagenet21k")),  # distilled from, or initialised with, ImageNet-21k weights
    (r"m30m|m38m|^eva", ("imagenet1k", "imagenet21k")),  # EVA's image models start on sets with ImageNet-21k
    (r"\.lvd142m", ("imagenet1k", "imagenet21k", "lvd142m")),
    (r"\.dino$", ("imagenet1k",)),
    (r"laion2b", ("laion2b",)),
    (r"laion400m", ("laion400m",)),
    (r"laiona", ("laion_aesthetic",)),
    (r"openai", ("wit400m",)),
    (r"merged2b", ("coyo700m", "laion2b")),
    (r"webli", ("webli",)),
    (r"jft", ("jft300m",)),
    (r"ig1b|swag|seer", ("instagram",)),
    (r"yfcc100m", ("yfcc100m",)),
    (r"sa1b", ("sa1b",)),
)

# What "as in the CLIP paper" and "as in Chen et al. 2020" mean: datasets not measured by top-1 accuracy.
METRIC_BY_SOURCE = {
    "dinov2_paper_lp": {
        **dict.fromkeys(("aircraft", "caltech101", "flowers102", "pets"), "mean_per_class"),
        "voc2007": "map_11point",
    },
    "mlcd_lp": {
        **dict.fromkeys(("aircraft", "caltech101", "flowers102", "pets"), "mean_per_class"),
        "voc2007": "map_11point",
        "hateful_memes": "auc",
        "kinetics700": "mean_top1_top5",
    },
}
METRIC_NAMES = {"fewshot_episode_acc": "episode_acc", "mAP": "map", "mAP_11point": "map_11point"}

# Remarks of sources.csv in the index's short form; `split` differs by dataset in one source.
SPLIT_EXCEPTIONS = {("mieb_lp16", "food101"): "validation"}
LICENSE_OF_SOURCE = {
    "mieb_lp16": "cc0-1.0",
    "clip_benchmark_lp": "mit",
    "sfda_emms_ft": "mit",
    "logme_tllib_ft": "mit",
    "gate_ft": "mit",
    "medmnistplus": "apache-2.0",
    "aitlas_arena_ft": "mit",
    "dinov2_paper_lp": "paper (facts only)",
    "mlcd_lp": "mit (repository), paper (facts only)",
    "timm_checkpoints": "apache-2.0",
}


def pretraining_of(architecture: str, tag: str) -> str | None:
    """Return the pretraining of a timm checkpoint, None if no rule matches."""
    name = f"{architecture}.{tag}"
    return next((value for pattern, value in PRETRAINING_RULES if re.search(pattern, name)), None)


def trained_on_of(architecture: str, tag: str) -> tuple[str, ...]:
    """Return the datasets that a timm checkpoint has seen, sorted."""
    name = f"{architecture}.{tag}"
    return tuple(sorted({item for pattern, seen in TRAINED_ON_RULES if re.search(pattern, name) for item in seen}))


def metric_of(source: str, dataset: str, metric: str) -> str:
    """Return the metric of a published score, resolving ``see_source``."""
    if metric == "see_source":
        return METRIC_BY_SOURCE[source].get(dataset, "top1")
    return METRIC_NAMES.get(metric, metric)
