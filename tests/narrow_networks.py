"""ResNet-50 and VGG-16 with few channels: the same layers by the same names, but quick."""

from torchvision.models import resnet, vgg


def narrow_networks(set_attribute=setattr):
    """Have torchvision make them so, and all that is built on them."""
    make = resnet._resnet

    def narrow(block, *arguments, **options):
        if block is resnet.Bottleneck:
            options.setdefault("width_per_group", 8)
        return make(block, *arguments, **options)

    set_attribute(resnet, "_resnet", narrow)
    *narrowed, last, pooling = vgg.cfgs["D"]
    narrowed = [width if width == "M" else width // 8 for width in narrowed]
    set_attribute(vgg, "cfgs", {**vgg.cfgs, "D": [*narrowed, last, pooling]})
