r"""The classifier that weakly supervised segmentation starts from: IRN's ResNet-50 (Ahn et al., CVPR 2019).

It is a ResNet-50 whose last stage keeps its resolution (strides 2, 2, 2, 1: a grid of 1/16), with global average
pooling and a 1x1 convolution to the 20 classes of VOC (80 of COCO). Name this file on the command line:

    captum-regioncam seeds voc --root VOCdevkit/VOC2012 --model examples/irn_resnet50.py:network \
        --weights res50_cam.pth --output seeds

Checkpoints of IRN, and of methods built on it, load by the names of their parameters: ``stage1.0.weight``, ...,
``stage4.0.2.bn3.bias``, ``classifier.weight``. IRN also keeps the same tensors under other names, which are left out.
"""

import torchvision
from torch import Tensor, nn

_ALIASES = ("resnet50.", "backbone.", "newly_added.")


class IrnResNet50(nn.Module):
    """(N, 3, height, width), normalised with ImageNet's mean and standard deviation, to (N, classes) scores."""

    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        resnet = torchvision.models.resnet50(weights=None)
        for convolution in (resnet.layer4[0].conv2, resnet.layer4[0].downsample[0]):
            convolution.stride = (1, 1)
        self.stage1 = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool, resnet.layer1)
        self.stage2 = nn.Sequential(resnet.layer2)
        self.stage3 = nn.Sequential(resnet.layer3)
        self.stage4 = nn.Sequential(resnet.layer4)
        self.classifier = nn.Conv2d(2048, classes, 1, bias=False)
        self.register_load_state_dict_pre_hook(_leave_aliases_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores."""
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        return self.classifier(x.mean((2, 3), keepdim=True)).flatten(1)


def _leave_aliases_out(module, state_dict, prefix, *others):
    for name in [name for name in state_dict if name.removeprefix(prefix).startswith(_ALIASES)]:
        del state_dict[name]


def network() -> IrnResNet50:
    """Return the network for VOC's 20 classes."""
    return IrnResNet50()


def coco_network() -> IrnResNet50:
    """Return the network for COCO's 80 classes."""
    return IrnResNet50(80)
