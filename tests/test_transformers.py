"""Vision transformers of torchvision, timm and transformers, small and with random weights."""

import pytest
import timm
import torch
import torchvision
import transformers
from helpers import dense_region_cam, features_and_gradients
from torch import nn

from captum_regioncam import LayerCam, LayerRegionCam, channels_last, find_stages, tokens_to_grid

TINY = {"depth": 5, "embed_dim": 48, "num_heads": 3, "num_classes": 7}


def torchvision_vit():
    model = torchvision.models.VisionTransformer(64, 8, 5, 3, 48, 96, num_classes=7)
    nn.init.normal_(model.heads.head.weight)  # torchvision starts from zeros
    return model


def swin(**options):
    return torchvision.models.SwinTransformer([4, 4], 24, [2, 2, 2, 2], [2, 2, 4, 4], [4, 4], num_classes=7, **options)


def timm_swin():
    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=24, depths=(2, 2, 2, 2), num_classes=7
    )


def hugging_face(kind, **options):
    config = getattr(transformers, f"{kind}Config")(**options)
    return getattr(transformers, f"{kind}ForImageClassification")(config)


HF = {
    "num_hidden_layers": 5,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_attention_heads": 3,
    "image_size": 64,
    "num_labels": 7,
}
BLOCKS = ("0", "1", "3")  # of five, evenly; the last block is there by its first norm
PLAIN = {
    "torchvision-vit": (torchvision_vit, "encoder.layers.encoder_layer_{}", "ln_1", 1),
    "timm-vit": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=128, **TINY), "blocks.{}", "norm1", 1),
    "timm-deit-distilled": (
        lambda: timm.create_model("deit_tiny_distilled_patch16_224", img_size=128, **TINY), "blocks.{}", "norm1", 2,
    ),
    "timm-vit-registers": (
        lambda: timm.create_model("vit_small_patch14_reg4_dinov2.lvd142m", img_size=112, **TINY),
        "blocks.{}", "norm1", 5,
    ),
    "timm-vit-without-class-token": (
        lambda: timm.create_model("vit_medium_patch16_gap_240", img_size=128, **TINY), "blocks.{}", "norm1", 0,
    ),
    "transformers-vit": (lambda: hugging_face("ViT", **HF, patch_size=8), "vit.layers.{}", "layernorm_before", 1),
}  # fmt: skip
PYRAMIDS = {
    "torchvision-swin": (swin, ["features.1", "features.3", "features.5", "norm"], True),
    "timm-swin": (timm_swin, ["layers.0", "layers.1", "layers.2", "norm"], True),
    "transformers-swin": (
        lambda: hugging_face("Swin", image_size=64, window_size=2, embed_dim=24, num_heads=[2, 2, 4, 4]), None, False,
    ),
}  # fmt: skip


def scores_of(model):
    """The model, or a function that picks the logits of what transformers' models return."""
    is_hugging_face = isinstance(model, transformers.PreTrainedModel)
    return (lambda x: model(x).logits) if is_hugging_face else model


@pytest.mark.parametrize("name", PLAIN)
def test_plain_transformers(name):
    build, block, norm, prefix = PLAIN[name]
    model = build().eval()
    x = torch.randn(2, 3, *[{"timm": 128, "torc": 64, "tran": 64}[name[:4]] if "reg" not in name else 112] * 2)
    stages = find_stages(model, x)
    assert list(stages) == [*(block.format(i) for i in BLOCKS), f"{block.format(4)}.{norm}"]
    attribution = LayerRegionCam(scores_of(model), stages).attribute(x, target=3)
    assert attribution.shape == (2, 1, 8, 8)
    assert attribution.std() > 0.05
    explicit = LayerRegionCam(scores_of(model), list(stages.values()), reshape_transform=tokens_to_grid(prefix))
    assert torch.equal(explicit.attribute(x, target=3), attribution)
    # Gradients reach the patches at every stage, behind the last block's norm too.
    pairs = features_and_gradients(scores_of(model), stages.values(), x, 3)
    assert all(gradients[:, prefix:].abs().amax((1, 2)).min() > 0 for _, gradients in pairs)
    on_grid = [tuple(tokens_to_grid(prefix)(tensor) for tensor in pair) for pair in pairs]
    torch.testing.assert_close(attribution, dense_region_cam(on_grid).float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_pyramids(name):
    build, names, is_channels_last = PYRAMIDS[name]
    model, x = build().eval(), torch.randn(2, 3, 64, 64)
    stages = find_stages(model, x)
    assert len(stages) == 4
    if names:
        assert list(stages) == names
    assert (stages.reshape_transform is channels_last) == is_channels_last
    attribution = LayerRegionCam(scores_of(model), stages).attribute(x, target=1)
    assert attribution.shape == (2, 1, 16, 16)
    assert attribution.std() > 0.05
    pairs = features_and_gradients(scores_of(model), stages.values(), x, 1)
    grids = [tuple(stages.reshape_transform(tensor) for tensor in pair) for pair in pairs]
    assert [features.shape[2] for features, _ in grids] == [16, 8, 4, 2]
    torch.testing.assert_close(attribution, dense_region_cam(grids).float(), atol=1e-4, rtol=0)


def test_the_last_blocks_output_is_avoided_for_a_reason():
    model, x = torchvision_vit().eval(), torch.randn(1, 3, 64, 64)
    last = model.encoder.layers.encoder_layer_4
    with pytest.warns(UserWarning, match="are 0 everywhere"):
        assert LayerRegionCam(model, last, reshape_transform=tokens_to_grid()).attribute(x, target=1).max() == 0


@pytest.mark.parametrize("options", [{"dynamic_img_size": True}, {"img_size": (64, 128)}])
def test_images_that_are_not_square(options):
    model = timm.create_model("vit_tiny_patch16_224", **options, **TINY).eval()
    x = torch.randn(1, 3, 64, 128)
    stages = find_stages(model, x)
    assert LayerCam(model, stages).attribute(x, target=2).shape == (1, 1, 4, 8)
    rows_and_columns = torch.arange(32.0).view(1, 32, 1).expand(1, 32, 48)
    tokens = torch.cat([torch.full((1, 1, 48), -1.0), rows_and_columns], 1)
    on_grid = stages.reshape_transform.for_inputs([x])(tokens)
    assert on_grid.shape == (1, 48, 4, 8)
    assert on_grid[0, 0].flatten().tolist() == list(range(32))


@pytest.mark.parametrize("found_at", [(64, 96), (96, 64), (64, 64)])
def test_tokens_of_photos_of_other_sizes_than_the_stages_were_found_at(found_at):
    model = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True, **TINY).eval()
    cam = LayerRegionCam(model, find_stages(model, torch.randn(1, 3, *found_at)))
    for height, width in ((96, 64), (64, 96), (96, 96), (80, 144)):
        x, grid = torch.randn(1, 3, height, width), (height // 16, width // 16)
        explicit = LayerRegionCam(model, list(cam.layer.values()), reshape_transform=tokens_to_grid(1, grid))
        assert cam.attribute(x, target=1).shape == (1, 1, *grid)
        assert torch.equal(cam.attribute(x, target=1), explicit.attribute(x, target=1))


@pytest.mark.parametrize("kind", ["ResNet", "ConvNext", "MobileNetV2"])
def test_convolutional_models_of_transformers(kind):
    options = {"ResNet": {"hidden_sizes": [16, 32, 64, 128], "embedding_size": 16}, "ConvNext": {}, "MobileNetV2": {}}
    model, x = hugging_face(kind, **options[kind]).eval(), torch.randn(1, 3, 64, 64)
    stages = find_stages(model, x)
    assert stages.reshape_transform is None
    assert len(stages) >= 4
    expected = dense_region_cam(features_and_gradients(scores_of(model), stages.values(), x, 1))
    assert expected.std() > 0.01
    attribution = LayerRegionCam(scores_of(model), stages).attribute(x, target=1)
    torch.testing.assert_close(attribution, expected.float(), atol=1e-3, rtol=0)
    with pytest.raises(TypeError, match=r"forward_func returned ImageClassifierOutput\w* of 'logits'.*\.logits"):
        LayerRegionCam(model, stages).attribute(x, target=1)
