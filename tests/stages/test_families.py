"""Families of networks whose stages were once wrong: small ones of timm and transformers, and written ones."""

from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
import transformers
from helpers import Named, conv, dense_region_cam, features_and_gradients
from torch import nn
from torchvision.models.video import resnet as video

from captum_regioncam import LayerRegionCam, channels_last, class_scores, find_stages, tokens_to_grid
from captum_regioncam.network.reshape import TokensToGrid
from captum_regioncam.stages.finder import stages_at

TINY = {"num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


def of_timm(name, **options):
    return lambda: timm.create_model(name, pretrained=False, num_classes=7, **options)


def of_transformers(kind, task="ImageClassification", **options):
    def build():
        config = getattr(transformers, f"{kind}Config")(num_labels=7, **options)
        return class_scores(getattr(transformers, f"{kind}For{task}")(config))

    return build


def detr(kind):
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    return of_transformers(
        kind, "ObjectDetection", use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=backbone, d_model=32, encoder_layers=4, decoder_layers=1, num_queries=10,
        encoder_ffn_dim=64, decoder_ffn_dim=64, encoder_attention_heads=2, decoder_attention_heads=2,
    )  # fmt: skip


def tnt():
    sizes = {"embed_dim": 32, "inner_dim": 8, "num_heads_inner": 2, "num_heads_outer": 2}
    return timm.create_model("tnt_s_legacy_patch16_224", depth=4, num_classes=7, **sizes)


def volo():
    sizes = {"embed_dims": [16, 32, 32, 32], "num_heads": [1, 2, 2, 2], "mlp_ratio": [2, 2, 2, 2]}
    return timm.models.VOLO(layers=[2, 2, 1, 1], stem_hidden_dim=8, num_classes=7, **sizes)


RESNET = [
    f"model.model.backbone.model.{name}" for name in ("embedder.embedder", "encoder.stages.0", "encoder.stages.1")
]
DETR = [*RESNET, "model.model.backbone.model.encoder.stages.2", *(f"model.model.encoder.layers.{i}" for i in range(3))]
DETR.append("model.model.encoder.layers.3.self_attn_layer_norm")
LEVIT = [f"model.levit.patch_embeddings.activation_layer_{i}" for i in (1, 2, 3)]
PATCHES, CLASS_TOKEN = "0 0", "1 0"  # tokens before and after the patches
BLOCKS = ["blocks.0", "blocks.1", "blocks.2", "blocks.3.norm1"]

# The network, the size of its input, its stages, and how the last of them is read.
FAMILIES = {
    # not the position embedding, which has the shape of the last features
    "detr": (detr("Detr"), 224, DETR, PATCHES),
    "conditional-detr": (detr("ConditionalDetr"), 224, DETR, PATCHES),
    "xcit": (
        of_timm("xcit_nano_12_p16_224", depth=4, embed_dim=32), 224,
        [*(f"patch_embed.proj.{i}" for i in (1, 3, 5)), *BLOCKS], PATCHES,
    ),
    # tokens in mask units until each unit is one token
    "timm-hiera": (
        of_timm("hiera_tiny_224", embed_dim=16, num_heads=1), 224, ["patch_embed", "blocks.10", "blocks.11.norm1"],
        PATCHES,
    ),
    "transformers-hiera": (
        of_transformers("Hiera", embed_dim=16, depths=[1, 2, 2, 2], num_heads=[1, 2, 4, 8]), 224,
        [
            "model.hiera.embeddings.patch_embeddings.projection",
            "model.hiera.encoder.stages.3.layers.0.layernorm_after",
            "model.hiera.encoder.stages.3.layers.1.layernorm_before",
        ],
        PATCHES,
    ),
    # detection tokens after the patches
    "yolos": (
        of_transformers("Yolos", "ObjectDetection", **TINY, image_size=[64, 64], num_detection_tokens=10), 64,
        [*(f"model.vit.encoder.layer.{i}" for i in range(3)), "model.vit.encoder.layer.3.layernorm_before"], "1 10",
    ),
    "mambaout": (
        of_timm("mambaout_femto", dims=[16, 24, 32, 48], depths=[2, 2, 2, 2]), 224,
        ["stem.act", "stages.0", "stages.1", "stages.2", "stages"], channels_last,
    ),
    # blocks at their own grids; with random weights, the last ones answer to all places alike, and are left out
    "timm-levit": (
        of_timm("levit_128s"), 224, ["stem.act1", "stem.act2", "stem.act3", "stages.0.blocks.1", "stages.1"], PATCHES,
    ),
    "transformers-levit": (
        of_transformers(
            "Levit", hidden_sizes=[16, 24, 32], num_attention_heads=[1, 1, 1], depths=[2, 2, 2], key_dim=[8, 8, 8]
        ),
        224,
        [*LEVIT, *(f"model.levit.encoder.stages.{name}" for name in ("0.layers.3", "1.layers.3"))], PATCHES,
    ),
    "vit-hybrid": (
        of_timm("vit_tiny_r_s16_p8_224", depth=4, embed_dim=32, num_heads=2), 224,
        ["patch_embed.backbone.norm", *BLOCKS], CLASS_TOKEN,
    ),
    "volo": (volo, 224, ["patch_embed.conv", "network.0", "norm", "aux_head"], PATCHES),
    "tnt": (
        tnt, 224, ["pixel_embed.proj", *(f"blocks.{i}.norm_mlp" for i in range(3)), "blocks.3.norm_out"], CLASS_TOKEN,
    ),
    "crossvit": (
        of_timm("crossvit_tiny_240", embed_dim=(16, 32), num_heads=(1, 2)), 240,
        ["blocks.2.blocks.0.0", "blocks.2.blocks.1.3"], CLASS_TOKEN,
    ),
    "vitamin": (
        of_timm("vitamin_small_224", depth=4), 224,
        [*(f"patch_embed.backbone.{name}" for name in ("stem", "stages.0", "stages")), *BLOCKS], PATCHES,
    ),
    "cvt": (
        of_transformers("Cvt", embed_dim=[8, 16, 24], num_heads=[1, 1, 2], depth=[1, 2, 3]), 224,
        [f"model.cvt.encoder.stages.{name}" for name in ("0.layers.0", "1.layers.1", "2.layers.2.layernorm_before")],
        CLASS_TOKEN,
    ),
    "sam": (
        of_timm("samvit_base_patch16_224", depth=4, embed_dim=32, num_heads=2, global_attn_indexes=(3,)), 224,
        [*BLOCKS, "neck"], None,
    ),
    "data2vec": (
        of_transformers("Data2VecVision", **TINY, image_size=64), 64,
        [
            *(f"model.data2vec_vision.encoder.layer.{i}.layernorm_after" for i in range(3)),
            "model.data2vec_vision.encoder.layer.3.layernorm_before",
        ],
        CLASS_TOKEN,
    ),
}  # fmt: skip


def transform_of(stages, name):
    transform = stages.reshape_transform
    return transform.get(name) if isinstance(transform, dict) else transform


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The maps of examples")
@pytest.mark.parametrize("name", FAMILIES)
def test_families(name):
    build, side, names, layout = FAMILIES[name]
    torch.manual_seed(0)
    model, x = build().eval(), torch.randn(1, 3, side, side)
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():  # a head that starts from zeros
            nn.init.normal_(module.weight)
    stages = find_stages(model, x)
    assert list(stages) == names
    last = transform_of(stages, names[-1])
    if isinstance(layout, str):
        assert isinstance(last, TokensToGrid)
        assert f"{last.prefix_tokens} {last.suffix_tokens}" == layout
    else:
        assert last is layout
    dense = name in ("detr", "conditional-detr", "yolos")
    target = (0, 3) if dense else 3
    attribution = LayerRegionCam(model, stages).attribute(x, target)
    assert attribution.isfinite().all()
    assert attribution.std() > 0.01


def on_grids(stages, pairs, x):
    transforms = [transform_of(stages, name) for name in stages]
    own = [one.for_inputs([x]) if isinstance(one, TokensToGrid) else one or nn.Identity() for one in transforms]
    return [tuple(map(one, pair)) for one, pair in zip(own, pairs, strict=True)]


@pytest.mark.parametrize("name", ["vit-hybrid", "yolos"])
def test_several_layouts_give_the_map_of_plain_autograd(name):
    torch.manual_seed(0)
    build, side, *_ = FAMILIES[name]
    model, x = build().eval(), torch.randn(1, 3, side, side)
    stages = find_stages(model, x)
    scores = lambda x: model(x).flatten(1)  # noqa: E731
    pairs = features_and_gradients(scores, stages.values(), x, 3)
    expected = dense_region_cam(on_grids(stages, pairs, x))
    torch.testing.assert_close(LayerRegionCam(scores, stages).attribute(x, 3), expected.float(), atol=1e-3, rtol=0)


class Net(Named):
    """As errors call it."""


def test_three_convolutions_whose_activations_are_functions():
    net = Net(
        lambda m, x: m.fc(F.relu(m.conv3(F.relu(m.conv2(F.relu(m.conv1(x)))))).mean((2, 3))),
        conv1=conv(3, 4, 2), conv2=conv(4, 6, 2), conv3=conv(6, 8, 2), fc=nn.Linear(8, 3),
    )  # fmt: skip
    x = torch.randn(2, 3, 32, 32)
    stages = find_stages(net, x)
    assert repr(stages) == "Stages(conv2 (input), conv3 (input), conv3)"
    assert list(stages) == ["conv2", "conv3 (input)", "conv3"]
    first = F.relu(net.conv1(x)).detach().requires_grad_()
    second = F.relu(net.conv2(first)).detach().requires_grad_()
    third = net.conv3(second).detach().requires_grad_()

    def gradient(of, tail):
        return torch.autograd.grad(net.fc(tail(of).mean((2, 3)))[:, 1].sum(), of)[0]

    after_second = lambda x: F.relu(net.conv3(x))  # noqa: E731
    pairs = [
        (first, gradient(first, lambda x: after_second(F.relu(net.conv2(x))))),
        (second, gradient(second, after_second)),
        (third, gradient(third, F.relu)),
    ]  # fmt: skip
    cam = LayerRegionCam(net, stages)
    torch.testing.assert_close(cam.attribute(x, 1), dense_region_cam(pairs).float(), atol=1e-4, rtol=0)
    assert list(cam.attribute_layers(x, 1)) == list(stages)


def body(inputs=3):
    return nn.Sequential(conv(inputs, 4, 2), nn.ReLU(), conv(4, 6, 2), nn.ReLU())


def test_a_backbone_that_runs_twice():
    siamese = Net(lambda m, a, b: m.fc((m.body(a) - m.body(b)).abs().mean((2, 3))), body=body(), fc=nn.Linear(6, 2))
    x, y = torch.randn(2, 2, 3, 32, 32)
    stages = find_stages(siamese, x, y)
    assert list(stages) == ["body.1", "body"]
    message = r"layer 'body\.1' \(ReLU\) runs 2 times in the forward pass; the attribution is to its last call"
    with pytest.warns(UserWarning, match=message), pytest.warns(UserWarning, match=r"layer 'body' \(Sequential\)"):
        attribution = LayerRegionCam(siamese, stages).attribute((x, y), 1)
    of_x = siamese.body(x).detach()
    tail = Net(lambda m, b: siamese.fc((of_x - m.body(b)).abs().mean((2, 3))), body=siamese.body)
    expected = dense_region_cam(features_and_gradients(tail, stages.values(), y, 1))
    torch.testing.assert_close(attribution, expected.float(), atol=1e-4, rtol=0)
    assert attribution.std() > 0.01


def test_a_second_branch_without_gradients_is_passed_over():
    def forward(m, x):
        scores = m.fc(m.body(x).mean((2, 3)))
        with torch.no_grad():
            m.body(x.flip(3))  # as for a target network
        return scores

    net, x = Net(forward, body=body(), fc=nn.Linear(6, 2)), torch.randn(2, 3, 32, 32)
    plain = Net(lambda m, x: m.fc(m.body(x).mean((2, 3))), body=net.body, fc=net.fc)
    stages = find_stages(net, x)
    assert list(stages) == ["body.1", "body"]
    attribution = LayerRegionCam(net, stages).attribute(x, 1)  # and no warning
    assert torch.equal(attribution, LayerRegionCam(plain, stages).attribute(x, 1))


def test_heads_that_the_scores_do_not_depend_on_are_no_stages():
    encode, decode = body(), nn.Sequential(nn.Upsample(scale_factor=2), conv(6, 6), nn.ReLU())
    net = Net(
        lambda m, x: (lambda deep: {"out": m.head(m.decode(deep)), "deep": m.deep_head(deep)})(m.encode(x)),
        encode=encode, decode=decode, head=nn.Conv2d(6, 3, 1), deep_head=nn.Conv2d(6, 3, 1),
    )  # fmt: skip
    x = torch.randn(2, 3, 32, 32)
    stages = find_stages(net, x)
    assert list(stages) == ["decode", "head", "encode"]
    score = lambda x: net(x)["out"].sum((2, 3))  # noqa: E731
    pairs = features_and_gradients(score, stages.values(), x, 1)
    expected = dense_region_cam(pairs)
    torch.testing.assert_close(LayerRegionCam(score, stages).attribute(x, 1), expected.float(), atol=1e-4, rtol=0)


def test_a_backbone_that_gives_several_features():
    net = Net(
        lambda m, x: (lambda fine: {"fine": fine, "coarse": m.coarse(fine)})(m.fine(x)),
        fine=nn.Sequential(conv(3, 4, 2), nn.ReLU()), coarse=nn.Sequential(conv(4, 6, 2), nn.ReLU()),
    )  # fmt: skip
    assert list(find_stages(net, torch.randn(2, 3, 32, 32))) == ["fine", "coarse"]


def test_what_lies_before_a_detach_is_no_stage():
    net = Net(
        lambda m, x: m.fc(m.body2(m.body(x).detach()).mean((2, 3))),
        body=body(), body2=nn.Sequential(conv(6, 8, 2), nn.ReLU()), fc=nn.Linear(8, 2),
    )  # fmt: skip
    x = torch.randn(2, 3, 64, 64)
    stages = find_stages(net, x)
    assert list(stages) == ["body2"]
    assert LayerRegionCam(net, stages).attribute(x, 1).std() > 0.01


class ClassTokens(nn.Module):
    """A vision transformer with a class token for each class, as MCTformer's, and patches cut without a convolution."""

    def __init__(self, classes=20, patch=8, width=32, depth=4, grid=(8, 8)):
        super().__init__()
        self.patch, self.classes, self.grid = patch, classes, grid
        self.embed = nn.Linear(3 * patch**2, width)
        self.tokens = nn.Parameter(torch.randn(1, classes, width))
        self.places = nn.Parameter(torch.randn(1, grid[0] * grid[1], width))
        layer = partial(nn.TransformerEncoderLayer, width, 2, 64, batch_first=True, norm_first=True)
        self.blocks = nn.ModuleList(layer() for _ in range(depth))

    def forward(self, x):
        x = self.embed(F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)) + self.places
        x = torch.cat([self.tokens.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return x[:, : self.classes].mean(-1)


@pytest.mark.parametrize("classes", [1, 20])
def test_several_class_tokens(classes):
    net, x = ClassTokens(classes).eval(), torch.randn(2, 3, 64, 64)
    stages = find_stages(net, x)
    assert list(stages) == ["blocks.0", "blocks.1", "blocks.2", "blocks.3.norm1"]
    transform = stages.reshape_transform
    assert (transform.prefix_tokens, transform.suffix_tokens) == (classes, 0)
    explicit = LayerRegionCam(net, list(stages.values()), reshape_transform=tokens_to_grid(classes, (8, 8)))
    assert torch.equal(LayerRegionCam(net, stages).attribute(x, 0), explicit.attribute(x, 0))


def test_the_last_block_of_a_vision_transformer():
    net, x = ClassTokens(1).eval(), torch.randn(2, 3, 64, 64)
    message = (
        r"maps of examples \[0, 1\] of the batch are 0 everywhere: .* zero at the patches of 'blocks\.3' "
        r"\(TransformerEncoderLayer\), but not at the tokens beside them.*class token.*first norm, as find_stages does"
    )
    with pytest.warns(UserWarning, match=message):
        LayerRegionCam(net, net.blocks[3], reshape_transform=tokens_to_grid()).attribute(x, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "names"),
    [
        ("r2plus1d", (8, 32, 32), ["layer1", "layer2", "layer3", "layer4"]),
        ("swin3d_t", (8, 64, 64), ["features.0", "features.2", "features.4", "norm"]),
    ],
)
def test_videos(name, shape, names):
    if name == "r2plus1d":  # r2plus1d_18 with half as many blocks
        model = video.VideoResNet(video.BasicBlock, [video.Conv2Plus1D] * 4, [1] * 4, video.R2Plus1dStem).eval()
    else:
        model = torchvision.models.get_model(name, weights=None).eval()
    x = torch.randn(1, 3, *shape)
    stages = find_stages(model, x)
    assert list(stages) == names


NOTHING = r"find_stages: no module of {} gives features on a grid.*Region-CAM explains networks that keep the places"


def test_networks_without_places():
    lstm = Net(
        lambda m, x: m.fc(m.lstm(x.flatten(2))[0][:, -1]), lstm=nn.LSTM(64, 8, batch_first=True), fc=nn.Linear(8, 2)
    )
    with pytest.raises(ValueError, match=NOTHING.format("Net")):
        find_stages(lstm, torch.randn(2, 5, 8, 8))
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 2))
    with pytest.raises(ValueError, match=NOTHING.format("Sequential")):
        find_stages(mlp, torch.randn(2, 3, 8, 8))
    waveform = Net(lambda m, x: m.conv(x[:, None]).mean(2), conv=nn.Conv1d(1, 4, 9, 4))
    with pytest.raises(
        ValueError, match=r"got a torch\.float32 tensor of shape \(2, 800\)\. .*takes \(N, 1, samples\)"
    ):
        find_stages(waveform, torch.randn(2, 800))
    wrapped = Net(lambda m, x: m.inner(x[:, 0]), inner=waveform)
    assert list(find_stages(wrapped, torch.randn(2, 1, 800))) == ["inner.conv"]


def test_shuffled_tokens_alone():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix, self.head = nn.Linear(192, 16), nn.Linear(16, 2)

        def forward(self, x):
            x = F.unfold(x, 8, stride=8).transpose(1, 2)
            x = x.gather(1, torch.rand(x.shape[:2]).argsort(1)[..., None].expand_as(x))
            return self.head(self.mix(x).mean(1))

    with pytest.raises(ValueError, match=r"no features of Masked say what is where: .* \(mix, \.\.\.\)"):
        find_stages(Masked(), torch.randn(2, 3, 64, 64))


def test_layers_by_name_are_read_as_stages_are():
    class Hybrid(nn.Module):
        def __init__(self, shuffles=False):
            super().__init__()
            self.stem, self.vit = nn.Sequential(conv(3, 4, 2), nn.ReLU()), ClassTokens(3)
            self.after, self.head, self.shuffles = nn.Linear(32, 16), nn.Linear(16, 2), shuffles

        def forward(self, x):
            x = F.unfold(F.interpolate(self.stem(x)[:, :3], scale_factor=2), 8, stride=8).transpose(1, 2)
            x = self.vit.embed(x)
            order = torch.randperm(x.shape[1]) if self.shuffles else slice(None)
            return self.head(self.after(x[:, order]).relu().mean(1))

    net, x = Hybrid(), torch.randn(2, 3, 64, 64)
    layers = stages_at(net, x, names=["after", "stem", "head", "vit.blocks.0"])
    assert list(layers) == ["after", "stem", "head", "vit.blocks.0"]
    assert list(layers.reshape_transform) == ["after"]
    assert layers.reshape_transform["after"].prefix_tokens == 0
    two = {name: layers[name] for name in ("stem", "after")}
    maps = LayerRegionCam(net, two, reshape_transform=layers.reshape_transform).attribute_layers(x, 1)
    assert {name: tuple(one.shape[2:]) for name, one in maps.items()} == {"stem": (32, 32), "after": (8, 8)}
    with pytest.raises(ValueError, match=r"reshape_transform: there is no layer 'after' among \['stem'\]"):
        LayerRegionCam(net, {"stem": net.stem}, reshape_transform=layers.reshape_transform)
    with pytest.raises(
        ValueError, match=r"reshape_transform: there is no layer 'after' among \[\]\. Pass the layers as"
    ):
        LayerRegionCam(net, [net.stem, net.after], reshape_transform=layers.reshape_transform)
    with pytest.raises(
        ValueError, match=r"layer after does not say what is where: .*shuffled.* give the layer's layout"
    ):
        stages_at(Hybrid(shuffles=True), x, names=["after"])


def test_scores_without_gradients():
    net = Net(lambda m, x: m.fc(m.body(x).detach().mean((2, 3))), body=body(), fc=nn.Linear(6, 2))
    with pytest.raises(ValueError, match=r"the scores of Net do not depend on its features on a grid \(.*body.*\)"):
        find_stages(net, torch.randn(2, 3, 32, 32))


class HeadsOfAttention(nn.Module):
    """Its norm gives (N, tokens, heads, channels), whose heads are no columns of a grid."""

    def __init__(self):
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(8), nn.Linear(24, 24), nn.Linear(24, 24)

    def forward(self, x):
        heads = self.norm(x.unflatten(2, (3, 8))).flatten(2)
        return x + self.second(self.first(heads).relu())


def test_the_heads_of_attention_are_no_columns():
    """Where no convolution shows the grid: 196 patches are 14 x 14, not 98 x 2."""
    net = Named(
        lambda net, x: net.fc(net.blocks(net.patches(F.unfold(x, 16, stride=16).transpose(1, 2))).flatten(1)),
        patches=nn.Linear(768, 24), blocks=nn.Sequential(*(HeadsOfAttention() for _ in range(4))),
        fc=nn.Linear(196 * 24, 5),
    ).eval()  # fmt: skip
    stages = find_stages(net, torch.randn(1, 3, 224, 224))
    assert stages.reshape_transform(torch.randn(1, 196, 24)).shape == (1, 24, 14, 14)


def test_a_map_without_channels_is_no_stage():
    """Of depths, say: (N, height, width), which are no tokens with as many channels."""
    net = Named(
        lambda net, x: net.depth(net.relu(net.conv(x))),
        conv=conv(3, 8, 2), relu=nn.ReLU(), depth=Named(lambda net, x: net.conv(x)[:, 0], conv=nn.Conv2d(8, 1, 1)),
    ).eval()  # fmt: skip
    stages = find_stages(net, torch.randn(1, 3, 64, 64))
    assert set(stages) <= {"relu", "depth.conv"}
    assert "relu" in stages


def test_the_features_of_a_backbone_one_container_inside_another():
    """As transformers' backbones return them. A norm that they do not pass is no stage."""

    def forward(net, x):
        first = net.relu1(net.conv1(x))
        second = net.relu2(net.conv2(first))
        net.norm(second)
        return {"feature_maps": (first, second)}

    net = Named(
        forward, conv1=conv(3, 8, 2), relu1=nn.ReLU(), conv2=conv(8, 16, 2), relu2=nn.ReLU(), norm=nn.BatchNorm2d(16)
    ).eval()
    assert list(find_stages(net, torch.randn(1, 3, 64, 64))) == ["relu1", "relu2"]


def test_gates_are_no_rectified_features():
    """A sigmoid is nowhere negative either; but it is 0 nowhere."""

    def block(net, x):
        return x + net.project(net.wide(x) * net.gate(x))

    gated = Named(block, wide=conv(8, 12), gate=nn.Sequential(conv(8, 12), nn.Sigmoid()), project=nn.Conv2d(12, 8, 1))
    net = nn.Sequential(conv(3, 8, 2), gated, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    stages = find_stages(net, torch.randn(1, 3, 64, 64))
    assert list(stages) == ["1"]


def test_the_last_block_counts_not_the_widest_at_the_beginning():
    """The way down has wider rectified features than the blocks after it."""

    def narrow():
        return nn.Sequential(nn.Conv2d(16, 20, 1), nn.ReLU(), nn.Conv2d(20, 16, 1))

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = narrow()

        def forward(self, x):
            return x + self.mix(x)

    down = nn.Sequential(nn.Conv2d(8, 64, 1), nn.ReLU(), conv(64, 64, 2), nn.ReLU(), nn.Conv2d(64, 16, 1))
    stage = Named(lambda net, x: net.blocks(net.down(x)), down=down, blocks=nn.Sequential(Residual(), Residual()))
    net = Named(
        lambda net, x: net.fc(net.stage(net.stem(x)).flatten(1)),
        stem=conv(3, 8, 2), stage=stage, fc=nn.LazyLinear(5),
    ).eval()  # fmt: skip
    x = torch.randn(1, 3, 224, 224)
    net(x)
    assert list(find_stages(net, x))[-1] == "stage.blocks.1.mix.1"
