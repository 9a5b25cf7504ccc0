"""Run find_stages and LayerRegionCam on many architectures and write docs/models-table.md.

python benchmarks/models.py
"""

import os
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from measure import import_torchvision

torchvision = import_torchvision()  # before timm and transformers, which import it

import timm  # noqa: E402
import transformers  # noqa: E402

from captum_regioncam import LayerRegionCam, channels_last, find_stages  # noqa: E402

TABLE = Path(__file__).parent.parent / "docs" / "models-table.md"

TORCHVISION = """
resnet18 resnet50 resnext50_32x4d wide_resnet50_2 vgg16 vgg16_bn alexnet densenet121 mobilenet_v2
mobilenet_v3_large efficientnet_b0 efficientnet_v2_s squeezenet1_1 googlenet inception_v3 regnet_y_400mf
convnext_tiny mnasnet1_0 shufflenet_v2_x1_0 vit_b_16 vit_b_32 swin_t swin_v2_t maxvit_t
""".split()
TIMM = """
resnet50 convnext_tiny efficientnet_b0 mobilenetv3_large_100 regnety_004 dla34 hrnet_w18 res2net50_26w_4s
cspresnet50 xception41 ghostnet_100 nfnet_l0 vit_tiny_patch16_224 deit_tiny_patch16_224
deit_tiny_distilled_patch16_224 vit_small_patch14_reg4_dinov2 vit_medium_patch16_gap_240
deit3_small_patch16_224 beit_base_patch16_224 eva02_tiny_patch14_224 cait_xxs24_224
swin_tiny_patch4_window7_224 pvt_v2_b0 twins_svt_small poolformer_s12 mobilevit_xs
""".split()
TRANSFORMERS = ["ResNet", "ConvNext", "MobileNetV2", "ViT", "DeiT", "Dinov2", "Beit", "Swin", "Segformer"]


def of_torchvision(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **options)
    if name.startswith("vit"):
        torch.nn.init.normal_(model.heads.head.weight)  # it starts from zeros
    return model, {"inception_v3": 299, "swin_v2_t": 256}.get(name, 224)


def of_timm(name):
    model = timm.create_model(name, pretrained=False, num_classes=10)
    return model, model.pretrained_cfg["input_size"][-1]


def of_transformers(name):
    size = {"image_size": 224} if name == "Dinov2" else {}
    config = getattr(transformers, f"{name}Config")(num_labels=10, **size)
    return getattr(transformers, f"{name}ForImageClassification")(config), 224


def row(library, name, model, size):
    torch.manual_seed(0)
    model.eval()
    x = torch.randn(1, 3, size, size)
    stages = find_stages(model, x)
    wrapped = isinstance(model, transformers.PreTrainedModel)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = (lambda x: model(x).logits) if wrapped else model
        target = int(scores(x)[0].argmax())  # not one that a final ReLU sets to 0
        attribution = LayerRegionCam(scores, stages).attribute(x, target)
    layout = {None: "channels first", channels_last: "channels last"}.get(stages.reshape_transform, "tokens to grid")
    grid = " x ".join(map(str, attribution.shape[2:]))
    names = ", ".join(f"`{stage}`" + " (input)" * (stage in stages.at_input) for stage in stages)
    return f"| {library} {name} | {names} | {layout} | {grid} | {attribution.min():.2f} to {attribution.max():.2f} |"


def main():
    lines = ["| model | stages | layout | map | range |", "|---|---|---|---|---|"]
    for library, names, build in (
        ("torchvision", TORCHVISION, of_torchvision),
        ("timm", TIMM, of_timm),
        ("transformers", TRANSFORMERS, of_transformers),
    ):
        for name in names:
            torch.manual_seed(0)
            lines.append(row(library, name, *build(name)))
            print(lines[-1])
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}"
    lines += ["", f"{len(lines) - 2} models; {versions}, transformers {transformers.__version__}."]
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
