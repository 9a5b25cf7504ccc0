"""Region-CAM's table of ILSVRC2012: Loc1, the share of photos whose most likely class and whose box are right.

    python examples/paper/ilsvrc.py --root ILSVRC2012 --output paper_ilsvrc

The classifiers are torchvision's VGG16 and ResNet-50 with their ImageNet weights, which torchvision downloads. Other
options, such as ``--device cuda``, ``--resume`` or ``--limit 100``, are passed to each command. ``torchrun`` in place
of ``python`` shares the photos among processes.

The first part follows the protocol of Choe et al. (CVPR 2020), the second that of LayerCAM: a fixed threshold, and the
largest rectangle. LayerCAM's Loc1 is calculated from Region-CAM's: the paper states a difference of 4.5 points.
"""

import sys

from table import BASELINES, OF_VGG16, Part, fill

COMMAND = "evaluate ilsvrc --root {root}"
CHOE = " --step 0.001"
LAYER_CAM = " --box rectangle --box-threshold 0.15"
VGG16 = " --model torchvision:vgg16"
RESNET50 = " --model torchvision:resnet50"
PAPER = OF_VGG16 | {"layer-cam": 47.2, "region-cam": 51.7}
OF_RESNET50 = BASELINES | {"region-cam": None}

PARTS = {
    "vgg16": Part("VGG16, Choe et al.", COMMAND + CHOE + VGG16, PAPER, "loc1"),
    "vgg16-layercam": Part("VGG16, LayerCAM's protocol", COMMAND + LAYER_CAM + VGG16, PAPER, "loc1"),
    "resnet50": Part("ResNet-50, Choe et al.", COMMAND + CHOE + RESNET50, OF_RESNET50, "loc1"),
    "resnet50-layercam": Part("ResNet-50, LayerCAM's protocol", COMMAND + LAYER_CAM + RESNET50, OF_RESNET50, "loc1"),
}

if __name__ == "__main__":
    sys.exit(fill(__doc__, PARTS, {"root": None}))
