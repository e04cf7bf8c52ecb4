"""Networks with random weights that tests run over; importing this imports neither timm, transformers nor torch.

`TIMM_ARCHITECTURES` maps a timm architecture to the arguments that make it small (pass ``num_classes=0`` too).
`TRANSFORMERS_CASES` maps a label to a function that saves a tiny checkpoint, network and image processor, in a folder.
Image sizes are as small as each architecture allows, since most tests are about wiring.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

TIMM_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "convnext_atto": {},
    "efficientnet_lite0": {},
    "mobilenetv3_small_050": {},
    "vit_tiny_patch16_224": {"img_size": 64},
    "deit_tiny_distilled_patch16_224": {"img_size": 64},
    "swin_tiny_patch4_window7_224": {"img_size": 56},
    "maxvit_pico_rw_256": {"img_size": 64},
    "xcit_nano_12_p16_224": {},
    "levit_128s": {},
    "eva02_tiny_patch14_224": {"img_size": 56},
    "regnety_002": {},
    "densenet121": {},
    "mobilevit_xxs": {},
    "vit_small_patch14_dinov2": {"img_size": 56},
}

_FIXED_SIZES = {"levit_128s": 224}
_SMALL = 64


def timm_input_size(architecture: str) -> tuple[int, int, int]:
    """Return the ``(3, H, W)`` at which `architecture` of `TIMM_ARCHITECTURES` is tested."""
    size = _FIXED_SIZES.get(architecture) or TIMM_ARCHITECTURES[architecture].get("img_size", _SMALL)
    return (3, size, size)


_VIT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
_TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 32,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
CLASSES = 5


def _save(folder: Path, model: Any, processor: str = "ViTImageProcessor", **options: Any) -> Path:
    import transformers

    model.save_pretrained(folder)
    options = {"size": {"height": 32, "width": 32}} | options
    getattr(transformers, processor)(**options).save_pretrained(folder)
    return folder


def _case(config: str, model: str, processor: str = "ViTImageProcessor", **fields: Any) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        import transformers

        settings = getattr(transformers, config)(**fields)
        return _save(folder, getattr(transformers, model)(settings), processor)

    return save


def _convolutional(processor: str, config: str, model: str, **fields: Any) -> Callable[[Path], Path]:
    """Save with a processor that resizes the shortest edge, then crops."""

    def save(folder: Path) -> Path:
        import transformers

        network = getattr(transformers, model)(getattr(transformers, config)(**fields))
        crop = {"crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
        return _save(folder, network, processor, size={"shortest_edge": 36}, **crop)

    return save


def _dual_encoder(family: str) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        import transformers

        text = getattr(transformers, f"{family}TextConfig")(**_TEXT)
        vision = getattr(transformers, f"{family}VisionConfig")(**_VIT)
        config = getattr(transformers, f"{family}Config")(text_config=text.to_dict(), vision_config=vision.to_dict())
        return _save(folder, getattr(transformers, f"{family}Model")(config), **_processor_of(family))

    return save


def _processor_of(family: str) -> dict[str, Any]:
    if family == "CLIP":
        sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        return {"processor": "CLIPImageProcessor", **sizes}
    return {"processor": "SiglipImageProcessor"}


def _vit_without_pooler(folder: Path) -> Path:
    import transformers

    return _save(folder, transformers.ViTModel(transformers.ViTConfig(**_VIT), add_pooling_layer=False))


def _timm_wrapper(model: str) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        import transformers

        config = transformers.TimmWrapperConfig(  # type: ignore[call-arg]
            architecture="resnet10t",
            num_labels=CLASSES,
            pretrained_cfg={"input_size": [3, 64, 64], "crop_pct": 0.9, "interpolation": "bicubic"},
        )
        # Its image processor is written into config.json with the network.
        getattr(transformers, model)(config).save_pretrained(folder)
        return folder

    return save


_SWIN: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "window_size": 4,
}
_CONVNEXT: dict[str, Any] = {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2}
_RESNET: dict[str, Any] = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
_MOBILENET: dict[str, Any] = {"depth_multiplier": 0.25, "image_size": 32}

#: Label to a function that saves the checkpoint into an existing or new folder and returns it.
TRANSFORMERS_CASES: dict[str, Callable[[Path], Path]] = {
    "vit": _case("ViTConfig", "ViTModel", **_VIT),
    "vit_without_pooler": _vit_without_pooler,
    "vit_classifier": _case("ViTConfig", "ViTForImageClassification", **_VIT, num_labels=CLASSES),
    "vit_mae": _case(
        "ViTMAEConfig",
        "ViTMAEForPreTraining",
        **_VIT,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    ),
    "deit_distilled_classifier": _case(
        "DeiTConfig", "DeiTForImageClassificationWithTeacher", **_VIT, num_labels=CLASSES
    ),
    "dinov2": _case("Dinov2Config", "Dinov2Model", **_VIT),
    "dinov2_classifier": _case("Dinov2Config", "Dinov2ForImageClassification", **_VIT, num_labels=CLASSES),
    "convnext": _convolutional("ViTImageProcessor", "ConvNextConfig", "ConvNextModel", **_CONVNEXT),
    "convnext_classifier": _case("ConvNextConfig", "ConvNextForImageClassification", **_CONVNEXT, num_labels=CLASSES),
    "resnet": _case("ResNetConfig", "ResNetModel", **_RESNET),
    "resnet_classifier": _case("ResNetConfig", "ResNetForImageClassification", **_RESNET, num_labels=CLASSES),
    "swin": _case("SwinConfig", "SwinModel", **_SWIN),
    "swin_classifier": _case("SwinConfig", "SwinForImageClassification", **_SWIN, num_labels=CLASSES),
    "beit": _case("BeitConfig", "BeitModel", **_VIT),
    "beit_classifier": _case("BeitConfig", "BeitForImageClassification", **_VIT, num_labels=CLASSES),
    "siglip_vision": _case("SiglipVisionConfig", "SiglipVisionModel", "SiglipImageProcessor", **_VIT),
    "siglip": _dual_encoder("Siglip"),
    "clip_vision": _case("CLIPVisionConfig", "CLIPVisionModel", **_VIT),
    "clip": _dual_encoder("CLIP"),
    "mobilenet_v1": _convolutional("MobileNetV1ImageProcessor", "MobileNetV1Config", "MobileNetV1Model", **_MOBILENET),
    "mobilenet_v1_classifier": _case(
        "MobileNetV1Config", "MobileNetV1ForImageClassification", **_MOBILENET, num_labels=CLASSES
    ),
    "levit_distilled_classifier": _case(
        "LevitConfig",
        "LevitForImageClassificationWithTeacher",
        image_size=32,
        hidden_sizes=[16, 32, 48],
        num_attention_heads=[1, 2, 3],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
        num_labels=CLASSES,
    ),
    "timm_wrapper": _timm_wrapper("TimmWrapperModel"),
    "timm_wrapper_classifier": _timm_wrapper("TimmWrapperForImageClassification"),
}


def save_timm(folder: Path, architecture: str = "resnet10t", **settings: Any) -> Any:
    """Save a random timm network as `timm` does for the Hub; return it in evaluation mode."""
    import timm
    from timm.models import save_for_hf

    model = timm.create_model(architecture, num_classes=CLASSES, **settings).eval()
    save_for_hf(model, str(folder), data_config={"input_size": (3, 64, 64), "crop_pct": 0.9}, safe_serialization=True)
    return model


def saved(case: str, folder: Path) -> Path:
    """Save a random checkpoint of `TRANSFORMERS_CASES`, or "timm", and return the folder."""
    if case != "timm":
        return TRANSFORMERS_CASES[case](folder)
    save_timm(folder)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def images(size: tuple[int, int, int], count: int = 3) -> Tensor:
    import torch

    return torch.rand(count, *size, generator=torch.Generator().manual_seed(0))
