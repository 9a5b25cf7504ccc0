"""Each family of networks: stages that say what is where, and a map, or a message that says what to do."""

import pytest
import torch
from examine import examine
from families import NotBuilt, builder, settled

_SAMPLES = "takes (N, samples), without channels"
WITHOUT_STAGES = {
    "transformers-audio-spectrogram-transformer-audio": "takes (N, time, frequencies), without channels",
    "transformers-data2vec-audio-audio": _SAMPLES,
    "transformers-hubert-audio": _SAMPLES,
    "transformers-imagegpt": "takes the numbers of colours, and no image",
    "transformers-perceiver": "its latents have no place",
    "transformers-sew-audio": _SAMPLES,
    "transformers-sew-d-audio": _SAMPLES,
    "transformers-siglip2": "takes patches, and no image",
    "transformers-siglip2-zero-shot": "takes patches, and no image",
    "transformers-timesformer-video": "tokens of all frames are one row, and those of one place are beside each other",
    "transformers-unispeech-audio": _SAMPLES,
    "transformers-unispeech-sat-audio": _SAMPLES,
    "transformers-videoprism-zero-shot": "frames become examples of the batch",
    "transformers-videoprism_vision_model-video": "frames become examples of the batch",
    "transformers-wav2vec2-audio": _SAMPLES,
    "transformers-wav2vec2-bert-audio": "takes (N, time, features), with the channels last",
    "transformers-wav2vec2-conformer-audio": _SAMPLES,
    "transformers-wavlm-audio": _SAMPLES,
    "written-lstm": "has one layer, whose output is a tuple",
    "written-mlp": "has no grid at all",
    "written-spectrogram-classifier": _SAMPLES,
    "written-waveform": _SAMPLES,
}
"""Families that need no stages, and why."""
_ATTENTION = "attention without a shortcut around it"
_POOLED = "a head with a branch that pools globally"
_RESOLUTIONS = "resolutions of 10 x 10 positions and fewer after the backbone"
MIXES = {
    "timm-convmixer": "32 convolutions of 9 x 9, without a shortcut around the others",
    "timm-efficientformer_v2": _ATTENTION,
    "timm-efficientvit_mit": "linear attention",
    "timm-inception_v4": "149 layers without shortcuts",
    "timm-levit": _ATTENTION,
    "timm-nasnet": "many layers with pooling instead of shortcuts",
    "timm-pnasnet": "many layers with pooling instead of shortcuts",
    "torchvision-detection-ssd": _RESOLUTIONS,
    "torchvision-detection-ssdlite": _RESOLUTIONS,
    "torchvision-video-s3d": "convolutions in space and time, without shortcuts",
    "transformers-levit": _ATTENTION,
    "transformers-mobilevit-segmentation": _POOLED,
    "transformers-mobilenet_v2-segmentation": _POOLED,
    "transformers-mobilevitv2-segmentation": _POOLED,
    "transformers-pp_ocrv5_mobile_det-detection": "gates that pool globally, one after another",
    "transformers-uvdoc_backbone-backbone": "dilated convolutions without shortcuts",
}
"""Families that mix all places in their deepest stage while their weights are random, and by what."""
HEADS = {
    "timm-xcit": "cls_attn_blocks",  # class attention, which changes the class token alone
    "written-shared-block": "block",  # runs at several places, so that it is no stage
}
"""What comes after the last stage and still has the patches, though it is no stage."""


@pytest.mark.filterwarnings("ignore")  # other packages'
def test_family(family, record_property):
    torch.manual_seed(0)
    row = {"family": family, "network": "", "stages": "", "outcome": ""}
    try:
        built = settled(builder(family)())
    except NotBuilt as reason:
        record_property("sweep", {**row, "outcome": f"not built here: {reason}"})
        return
    found = examine(built, mixes=family in MIXES, head=HEADS.get(family, ""))
    if not found.stages and family not in WITHOUT_STAGES:
        found.faults.append("no stages are found")
    outcome = f"wrong: {found.faults[0]}" if found.faults else found.outcome
    record_property("sweep", {**row, "network": built.network, "stages": found.stages, "outcome": outcome})
    print(*found.notes, sep="\n")
    assert not found.faults
