"""Rules that turn names (timm tags, published metric remarks) into the index's vocabulary.

Every rule is a table: the first pattern that matches decides.
"""

from __future__ import annotations

import re

# What a kind of pretraining learns from, before any fine-tuning.
OBJECTIVE_OF = {
    **dict.fromkeys(("in1k_supervised", "in12k_supervised", "in12k_ft_in1k"), "supervised"),
    **dict.fromkeys(("in21k_supervised", "in21k_ft_in1k", "web_supervised", "web_ft_in1k"), "supervised"),
    **dict.fromkeys(("in1k_distilled", "in21k_distilled", "agglomerative"), "distilled"),
    **dict.fromkeys(("mim", "mim_ft_in1k", "mim_ft_in21k", "mim_ft_in21k_ft_in1k", "jepa"), "masked"),
    **dict.fromkeys(("clip", "clip_ft_in12k", "clip_ft_in1k", "siglip", "siglip_ft_in1k"), "image-text"),
    **dict.fromkeys(("blip", "vlm", "autoregressive"), "image-text"),
    **dict.fromkeys(("dino", "dinov2", "dinov3"), "self-distillation"),
    **dict.fromkeys(("moco", "cluster", "ssl_web", "ssl_web_ft_in1k"), "contrastive"),
    "sam": "segmentation",
}

# (pattern on "architecture.tag", year): tags that are younger than the paper of the architecture.
YEARS = (
    (r"\.(a1h?|a2h?|a3|b1k|b2k|c1|c2|d|ram|am|ah|rsb_a1)_in1k", 2021),
    (r"augreg|tv2_in1k|miil_in21k|seer", 2021),
    (r"clip.*openai|\.dino$|orig_in21k_ft", 2021),
    (r"\.mae|swag|laion2b|fcmae|mim_in22k", 2022),
    (r"webli|lvd142m|sa1b|datacomp|metaclip_|dfn|sw_in12k|ijepa|fcmae", 2023),
    (r"ra4_|sbb|aimv2|apple_mclip|v2_webli", 2024),
    (r"lvd1689m|sat493m|v2_webli|vit_pe_|sbb2|metaclip2|mclip2|radio_v4", 2025),
)

# (pattern on "architecture.tag", datasets seen). All that match count; a superset brings its parts along.
TRAINED_ON_RULES = (
    (r"in1k", ("imagenet1k",)),
    (r"in12k", ("imagenet12k", "imagenet1k")),
    (r"in2[12]k|ssld_stage2|bd_ssld_6m", ("imagenet1k", "imagenet21k")),
    (r"^flexivit", ("imagenet1k", "imagenet21k")),  # distilled from, or initialised with, ImageNet-21k weights
    (r"m30m|m38m|^eva", ("imagenet1k", "imagenet21k")),  # EVA's image models start on sets with ImageNet-21k
    (r"lvd142m", ("imagenet1k", "imagenet21k", "lvd142m")),
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
METRIC_NAMES = {
    "fewshot_episode_acc": "episode_acc",
    "mAP": "map",
    "mAP_11point": "map_11point",
    "f1_macro": "macro_f1",
    "balanced_acc": "balanced_accuracy",
    "user_loss_based": "user_loss",
    "benchmark_main_metric": "benchmark_main",
}
# Printed under a heading that does not fit.
METRIC_EXCEPTIONS = {("visreg_lp", "chestxray"): "as_printed"}

# Remarks of sources.csv in the index's short form; `split` differs by dataset in one source.
SPLIT_EXCEPTIONS = {("mieb_lp16", "food101"): "validation", ("kaiko_readme_lp", "pcam_val"): "validation"}
SPLIT_OF_SOURCE = {
    **dict.fromkeys(("idest_lp", "hiera_mae_ft", "quicktune_ext", "galaxy_morph_ft"), "validation"),
    **dict.fromkeys(("vjepa_paper_attentive", "rop_staging_ft"), "validation"),
    **dict.fromkeys(("sugarcane_ft", "grapevine_mildew_ft"), "cross_validation"),
}
# What to beware of in a source; whether it helps to predict the others is for the metric to find out.
SOURCE_FLAGS = {
    "mieb_lp16": "pooling_differs;few_shot",  # CLIP by its projections, DINOv2 by the mean of its last hidden states
    "biobench_probe": "pooling_differs;probe_differs_by_task",  # CNN features are max-pooled
    "layerfusion_probe": "one_family_of_checkpoints",
    "clip_benchmark_lp": "chosen_on_test",
    "grapevine_mildew_ft": "chosen_on_test;small",
    "medmnistplus": "read_by_eye",
    "shrimp_timm_ft": "read_by_eye;one_seed;small",
    "geobench2": "multispectral",
    "deit_recipe_ft": "several_papers",
    **dict.fromkeys(("hiera_mae_ft", "vpt_vitb16_in21k"), "second_hand"),
    "bdd100k_cls_ft": "second_hand;self_reported",
    "aimv2_attentive": "rows_realigned",
    **dict.fromkeys(("uni_roi_lp", "visreg_lp"), "metric_unstated"),
    "quicktune_ext": "best_of_random_recipes;validation_split",  # slow and large networks are short-changed
    "3dpc_timm": "odd_tasks",
    "openclip_zeroshot": "no_training",
    **dict.fromkeys(("arcade_small_ft", "archstyle55_ft", "bwconrad_vit_ft"), "one_recipe"),
    **dict.fromkeys(("dermograph_ft", "galaxy_morph_ft", "smartfeeder_lp", "sugarcane_ft"), "one_recipe"),
    "tumorclassifier_ft": "one_recipe",
    "rop_staging_ft": "one_recipe;one_seed;small",
}
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
    "eva_pathology": "apache-2.0",
    "idest_lp": "paper (facts only)",
    "aimv2_attentive": "paper (facts only)",
    "dinov3_paper_lp": "paper (facts only)",
    "vit_paper_ft": "paper (facts only)",
    "visreg_lp": "paper (facts only)",
    "ijepa_paper_lp": "paper (facts only)",
    "vjepa_paper_attentive": "paper (facts only)",
    "biobench_probe": "mit",
    "deit_recipe_ft": "paper (facts only)",
    "hiera_mae_ft": "paper (facts only, second hand)",
    "hoptimus_tiles_lp": "see repository",
    "uni_roi_lp": "cc-by-nc-nd-4.0 (facts only)",
    "thunder_lp": "cc-by-4.0",
    "thunder_spider_knn": "cc-by-4.0",
    "dinov2_paper_lp_t7": "paper (facts only)",
    "lejepa_paper_lp": "paper (facts only)",
    "layerfusion_probe": "see repository",
    "vit_repo_ft": "apache-2.0",
    "bit_repo_ft": "apache-2.0",
    "kaiko_readme_lp": "cc-by-nc-sa (facts only)",
    "vpt_vitb16_in21k": "paper (facts only, second hand)",
    "bwconrad_vit_ft": "mit",
    "geobench2": "apache-2.0",
    "openclip_zeroshot": "mit",
    "emms_vit_ft": "mit or none stated (facts only)",
    "3dpc_timm": "cc-by-4.0",
    "quicktune_ext": "bsd-3-clause",
    "danish_fungi_ft": "bsd",
    "archstyle55_ft": "see repository",
    "arcade_small_ft": "see repository",
    "shrimp_timm_ft": "see repository",
    "bdd100k_cls_ft": "apache-2.0",
    "smartfeeder_lp": "see repository",
    "sugarcane_ft": "mit",
    "tumorclassifier_ft": "see repository",
    "galaxy_morph_ft": "see repository",
    "grapevine_mildew_ft": "mit",
    "dermograph_ft": "mit",
    "rop_staging_ft": "see repository",
}


def trained_on_of(architecture: str, tag: str) -> tuple[str, ...]:
    """Return the datasets that a timm checkpoint has seen, sorted."""
    name = f"{architecture}.{tag}"
    return tuple(sorted({item for pattern, seen in TRAINED_ON_RULES if re.search(pattern, name) for item in seen}))


def metric_of(source: str, dataset: str, metric: str) -> str:
    """Return the metric of a published score, resolving ``see_source``."""
    if (source, dataset) in METRIC_EXCEPTIONS:
        return METRIC_EXCEPTIONS[source, dataset]
    if metric == "see_source":
        return METRIC_BY_SOURCE[source].get(dataset, "top1")
    return METRIC_NAMES.get(metric, metric)


def split_of(source: str, dataset: str) -> str:
    """Return the images that a published score was measured on."""
    return SPLIT_EXCEPTIONS.get((source, dataset), SPLIT_OF_SOURCE.get(source, "test"))
