"""Region-CAM's table of MS COCO 2014: mIoU of seeds at the best threshold.

    python examples/paper/coco.py --root coco --weights coco_cam.pth --output paper_coco

The classifier is IRN's ResNet-50 for COCO's 80 classes; ``--vgg16`` adds one of torchvision's VGG16. Other options,
such as ``--device cuda``, ``--resume`` or ``--limit 100``, are passed to each command. ``torchrun`` in place of
``python`` shares the photos among processes.
"""

import sys

from table import BASELINES, OF_VGG16, VGG16, Part, fill

COMMAND = "evaluate coco --root {root} --split val2014"
IRN = " --model {examples}/irn_resnet50.py:coco_network --weights {weights}"

PARTS = {
    "irn-val": Part(
        "IRN's ResNet-50, val2014", COMMAND + IRN, BASELINES | {"cam": 20.15, "region-cam": 36.38}, "best_miou",
        needs=("weights",),
    ),
    "vgg16-val": Part("VGG16, val2014", COMMAND + VGG16, OF_VGG16, "best_miou", needs=("vgg16",)),
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(fill(__doc__, PARTS, {"root": None, "weights": None, "vgg16": None}))
