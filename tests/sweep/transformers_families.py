"""Hugging Face transformers: each type of model that the registries name for a task on images, video or sound."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from families import Builder, Built, NotBuilt, noise
from torch import Tensor, nn
from transformers.models.auto import modeling_auto

TASKS = {
    "classification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "segmentation": "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
    "universal-segmentation": "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES",
    "detection": "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",
    "zero-shot-detection": "MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES",
    "zero-shot": "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "depth": "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES",
    "backbone": "MODEL_FOR_BACKBONE_MAPPING_NAMES",
    "video": "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES",
    "audio": "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
}
SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": 64,
    "patch_size": 8,
}
"""What a plain transformer is given, as far as its configuration has it."""
FEWER = {"encoder_layers": 2, "decoder_layers": 2, "num_queries": 20, "num_frames": 4, "vocab_size": 99}
"""What any configuration is given, as far as it has more."""
WIDTHS = {"hidden_sizes": [16, 32, 64, 128]}
WINDOWS = {"image_size": 128, "window_size": 4, "embed_dim": 24, "num_heads": [1, 2, 4, 8]}
OPTIONS: dict[str, dict[str, Any]] = {
    "audio-spectrogram-transformer": {"max_length": 128, "num_mel_bins": 64},
    "beit-segmentation": {"out_indices": [0, 1, 2, 3]},
    "bit": {**WIDTHS, "embedding_size": 16, "num_groups": 8},
    "convnext": WIDTHS,
    "convnextv2": WIDTHS,
    "data2vec-vision-segmentation": {"num_hidden_layers": 12},
    "dinov3_convnext": WIDTHS,
    "donut-swin": WINDOWS,
    "dpt": {"num_hidden_layers": 12, "fusion_hidden_size": 32, "neck_hidden_sizes": [16, 32, 64, 64]},
    "depth_anything": {"patch_size": 8, "reassemble_hidden_size": 48},
    "efficientnet": {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280},
    "focalnet": {"hidden_sizes": [48, 96, 192, 384], "embed_dim": 24},
    "imagegpt": {"n_embd": 48, "n_layer": 4, "n_head": 4},
    "lw_detr": {"projector_scale_factors": [1.0]},
    "maskformer-swin": WINDOWS,
    "owlv2": {"projection_dim": 48},
    "owlvit": {"projection_dim": 48},
    "perceiver": {"num_latents": 32, "d_latents": 64, "num_self_attends_per_block": 2},
    "pp_doclayout_v2": {"class_thresholds": [0.0] * 20, "class_order": list(range(20))},
    "pp_ocrv5_mobile_det": {"layer_list_out_channels": [64, 128, 256, 512]},
    "prompt_depth_anything": {"patch_size": 8, "reassemble_hidden_size": 48},
    "blip_2_qformer": {"use_qformer_text_input": True},
    "regnet": {**WIDTHS, "groups_width": 8, "embedding_size": 16},
    "resnet": {**WIDTHS, "embedding_size": 16},
    "rt_detr_resnet": {**WIDTHS, "embedding_size": 16},
    "sapiens2": {"num_key_value_attention_heads": 4, "num_key_value_heads_per_layer": None},
    "sapiens2-segmentation": {
        "head_config": {
            "upsample_out_channels": [48],
            "upsample_kernel_sizes": [4],
            "conv_out_channels": [48],
            "conv_kernel_sizes": [1],
        }
    },
    "siglip2_text_model": {"projection_size": 48},
    "siglip2_vision_model": {"num_patches": 64},
    "siglip_text_model": {"projection_size": 48},
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "videoprism_text_model": {"hidden_size": 48},
    "videoprism_vision_model": {
        "image_size": 72,
        "hidden_size": 48,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "num_spatial_layers": 3,
        "num_temporal_layers": 2,
    },
    "vjepa2": {"crop_size": 64, "patch_size": 8, "frames_per_clip": 4, "mlp_ratio": 2.0},
    "whisper": {"d_model": 48, "encoder_attention_heads": 4, "encoder_ffn_dim": 96},
    "timm_backbone": {"backbone": "resnet18", "use_pretrained_backbone": False},
    "chmv2": {"fusion_hidden_size": 32, "head_hidden_size": 32, "post_process_channels": [16, 32, 64, 64]},
    "tipsv2_dpt": {"fusion_hidden_size": 32, "neck_hidden_sizes": [16, 32, 64, 64]},
    "zoedepth": {"fusion_hidden_size": 32, "neck_hidden_sizes": [16, 32, 64, 64], "bottleneck_features": 32},
    "yolos": {"image_size": [64, 64]},
}
"""Type of model, or that and a task -> options beside or instead of these."""
SIZES: dict[str, tuple[int, ...]] = {
    "align": (224, 224),
    "audio-spectrogram-transformer": (128, 64),
    "convnext": (128, 128),
    "convnextv2": (128, 128),
    "dinov3_convnext": (128, 128),
    "efficientnet": (224, 224),
    "focalnet": (128, 128),
    "hgnet_v2": (224, 224),
    "imagegpt": (32, 32),
    "mobilevit": (128, 128),
    "mobilevitv2": (128, 128),
    "pp_lcnet": (224, 224),
    "textnet": (160, 160),
    "wav2vec2-bert": (64,),
    "whisper": (3000,),
}
"""Type of model -> size of the input, where it is neither 128 x 128 nor said by the configuration."""
NOT_BUILT: dict[str, str] = {
    "depth_pro": "takes images of 1536 x 1536 in patches of 384",
    "dinat": "needs natten",
    "omdet-turbo": "takes the tokens of each class and of the task beside the image",
    "pp_ocrv5_server_det": "its default configuration is not complete",
    "pp_ocrv6_medium_det": "its default configuration is not complete",
    "pp_ocrv6_small_det": "its default configuration is not complete",
    "shieldgemma2": "is a language model that answers yes or no",
    "zoedepth": "its depths do not depend on the photo while its weights are random",
}
"""Type of model -> why it is not built."""
TEXT = torch.tensor([[1, 5, 6, 2], [1, 7, 8, 2], [1, 9, 3, 2]])


def families() -> dict[str, Builder]:
    """Walk the registries: {family: builder}."""
    found = {}
    for task, mapping in TASKS.items():
        for kind, classes in getattr(modeling_auto, mapping).items():
            name = f"transformers-{kind}" + f"-{task}" * (task != "classification")
            found[name] = partial(_build, kind, task, classes if isinstance(classes, str) else classes[0])
    return found


def shrunk(kind: str, task: str, **options: Any) -> Any:
    """Return a small configuration of a type of model, and of the configurations inside it."""
    default = transformers.CONFIG_MAPPING[kind]()
    given = {**OPTIONS.get(kind, {}), **OPTIONS.get(f"{kind}-{task}", {}), **options}
    return type(default)(**{**_smaller(default), **given})


def _smaller(config: Any) -> dict[str, Any]:
    values = config.to_dict()
    changed: dict[str, Any] = {}
    if all(isinstance(values.get(name), int) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")):
        changed |= {name: value for name, value in SMALL.items() if name in values}
        if any(index > SMALL["num_hidden_layers"] for index in values.get("out_indices") or [0]):
            changed["num_hidden_layers"] = max(values["out_indices"])
    changed |= {name: most for name, most in FEWER.items() if isinstance(values.get(name), int) and values[name] > most}
    if isinstance(values.get("depths"), list):
        changed["depths"] = [min(depth, 2) for depth in values["depths"]]
    for name in getattr(config, "sub_configs", {}):
        if isinstance(inside := getattr(config, name, None), transformers.PreTrainedConfig):
            changed[name] = {**inside.to_dict(), **_smaller(inside), **OPTIONS.get(inside.model_type, {})}
    return changed


def _build(kind: str, task: str, name: str) -> Built:
    if kind in NOT_BUILT:
        raise NotBuilt(NOT_BUILT[kind])
    if not hasattr(transformers, name) or type(getattr(transformers, name)).__name__ == "DummyObject":
        raise NotBuilt(f"transformers has no {name} here")
    labels = {} if task in ("zero-shot", "zero-shot-detection", "backbone", "depth") else {"num_labels": 20}
    config = shrunk(kind, task, **labels)
    model = getattr(transformers, name)(config)
    size = SIZES.get(f"{kind}-{task}") or SIZES.get(kind) or _size(config, kind, task)
    built = (ARRANGED.get(kind) or ARRANGED.get(task, _of_images))(name, model, size)
    built.dense = "segmentation" in task or "detection" in task or task == "depth"
    return built


def _size(config: Any, kind: str, task: str) -> tuple[int, ...]:
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", None) or 128
    size = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    if task == "video" or kind in ("videomt", "videoprism"):
        return (4, *size)
    return (16000,) if task == "audio" else size


def scores(output: Any) -> Tensor:
    """Make (N, classes) of what any of these models returns."""
    for name in ("logits_per_image", "logits_per_video"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    if getattr(output, "class_queries_logits", None) is not None:
        classes, masks = output.class_queries_logits.softmax(-1)[..., :-1], output.masks_queries_logits.sigmoid()
        return torch.einsum("nqk,nqhw->nk", classes, masks)
    if getattr(output, "predicted_depth", None) is not None:
        return output.predicted_depth.flatten(1).mean(1)[:, None]
    if getattr(output, "feature_maps", None) is not None:
        return sum(_projected(one) for one in output.feature_maps)
    logits = output.logits if getattr(output, "logits", None) is not None else output.last_hidden_state
    logits = logits[..., logits.isfinite().flatten(0, -2).all(0)]  # without those of words that a text lacks
    if logits.dim() == 4:
        return logits.mean((2, 3))
    return logits if logits.dim() == 2 else logits.mean(1)


def _projected(features: Tensor) -> Tensor:
    """Make seven scores of a backbone's features, (N, C, height, width) or (N, tokens, C)."""
    pooled = features.mean((2, 3)) if features.dim() == 4 else features.mean(1)
    return pooled @ torch.randn(pooled.shape[1], 7, generator=torch.Generator().manual_seed(0))


def _of_images(name: str, model: nn.Module, size: tuple[int, ...]) -> Built:
    config: Any = model.config
    channels = getattr(getattr(config, "vision_config", config), "num_channels", 3)
    return Built(name, model, noise(channels if isinstance(channels, int) else 3, *size), lambda x: scores(model(x)))


def _with_text(name: str, model: nn.Module, size: tuple[int, ...]) -> Built:
    names = list(inspect.signature(model.forward).parameters)
    """With the ids of three texts; for detectors, with those of each image."""

    def inputs(x: Tensor) -> tuple[Any, ...]:
        ids = TEXT[:1].expand(len(x), -1) if "GroundingDino" in name else TEXT
        ids = ids.repeat(len(x), 1) if name.startswith("Owl") else ids
        text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        given = {"pixel_values": x, **{key: value for key, value in text.items() if key in names}}
        last = max(names.index(key) for key in given)
        return tuple(given.get(key) for key in names[: last + 1])

    return Built(name, model, noise(3, *size), lambda *args: scores(model(*args)), inputs)


def _of_videos(name: str, model: nn.Module, size: tuple[int, ...]) -> Built:
    return Built(name, model, noise(3, *size), lambda x: scores(model(x)), lambda x: (x.movedim(1, 2),))


def _of_features(name: str, model: nn.Module, size: tuple[int, ...]) -> Built:
    """Whisper, which takes mel features as channels, and Wav2Vec2-BERT, which takes them last."""
    last = "Bert" in name
    arranged = (lambda x: (x.transpose(1, 2),)) if last else (lambda x: (x,))
    return Built(name, model, noise(160 if last else 80, *size), lambda x: scores(model(x)), arranged)


def _of_sound(name: str, model: nn.Module, size: tuple[int, ...]) -> Built:
    return Built(name, model, noise(1, *size), lambda x: scores(model(x)), lambda x: (x[:, 0],))


def _of_ids(name: str, model: nn.Module, size: tuple[int, ...]) -> Built:
    """ImageGPT, which takes each pixel's number in a palette."""

    def inputs(x: Tensor) -> tuple[Tensor]:
        return (((x.clamp(-2, 2) + 2) / 4 * 98).long().flatten(1),)

    return Built(name, model, noise(1, *size), lambda x: scores(model(x)), inputs)


def _of_patches(name: str, model: nn.Module, size: tuple[int, ...]) -> Built:
    """SigLIP 2, which takes patches instead of an image, and the grid that they come from."""

    def inputs(x: Tensor) -> tuple[Any, ...]:
        patches = nn.functional.unfold(x, 8, stride=8).transpose(1, 2)
        beside = (patches.new_ones(patches.shape[:2]), torch.tensor([[8, 8]]).expand(len(x), 2))
        text = (TEXT,) if name == "Siglip2Model" else ()
        return (*text, patches, *beside)

    return Built(name, model, noise(3, 64, 64), lambda *args: scores(model(*args)), inputs)


def _of_frames_and_text(name: str, model: nn.Module, size: tuple[int, ...]) -> Built:
    return Built(name, model, noise(3, *size), lambda *args: scores(model(*args)), lambda x: (x.movedim(1, 2), TEXT))


def _with_task(name: str, model: nn.Module, size: tuple[int, ...]) -> Built:
    task = torch.ones(1, 77, dtype=torch.long)
    return Built(
        name, model, noise(3, *size), lambda *args: scores(model(*args)), lambda x: (x, task.expand(len(x), -1))
    )


ARRANGED: dict[str, Callable[[str, nn.Module, tuple[int, ...]], Built]] = {
    "imagegpt": _of_ids,
    "oneformer": _with_task,
    "siglip2": _of_patches,
    "videomt": _of_videos,
    "wav2vec2-bert": _of_features,
    "whisper": _of_features,
    "videoprism": _of_frames_and_text,
    "zero-shot": _with_text,
    "zero-shot-detection": _with_text,
    "video": _of_videos,
    "audio": _of_sound,
}
