"""Region-CAM's table of PASCAL VOC 2012: mIoU of seeds at the best threshold.

    python examples/paper/voc.py --root VOCdevkit/VOC2012 --weights res50_cam.pth --output paper_voc

The classifier is IRN's ResNet-50; ``--vgg16`` adds one of torchvision's VGG16, trained on VOC's 20 classes. Other
options, such as ``--device cuda``, ``--resume`` or ``--limit 100``, are passed to each command. ``torchrun`` in place
of ``python`` shares the photos among processes.
"""

import sys

from table import BASELINES, OF_VGG16, VGG16, Part, fill

COMMAND = "evaluate voc --root {root} --split %s"
IRN = " --model {examples}/irn_resnet50.py:network --weights {weights}"

PARTS = {
    "irn-train": Part(
        "IRN's ResNet-50, train", COMMAND % "train" + IRN, BASELINES | {"cam": 46.51, "region-cam": 60.12}, "best_miou",
        needs=("weights",),
    ),
    "irn-val": Part(
        "IRN's ResNet-50, val", COMMAND % "val" + IRN, BASELINES | {"cam": 45.30, "region-cam": 58.43}, "best_miou",
        needs=("weights",),
    ),
    "vgg16-train": Part("VGG16, train", COMMAND % "train" + VGG16, OF_VGG16, "best_miou", needs=("vgg16",)),
    "vgg16-val": Part("VGG16, val", COMMAND % "val" + VGG16, OF_VGG16, "best_miou", needs=("vgg16",)),
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(fill(__doc__, PARTS, {"root": None, "weights": None, "vgg16": None}))
