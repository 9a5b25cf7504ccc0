"""Draw docs/region_cam.png, the picture of the README: four photos that come with scikit-image, and their maps."""

from pathlib import Path

import numpy as np
import torch
from captum.attr import LayerGradCam
from PIL import Image
from skimage import data

from captum_regioncam import LayerCam, LayerRegionCam, find_stages, show_attributions
from captum_regioncam.cli.models import load_classifier

HERE = Path(__file__).parent
PHOTOS = {"chelsea": 285, "rocket": 657, "coffee": 967, "camera": 872}  # Egyptian cat, missile, espresso, tripod

classifier = load_classifier()
photos = [Image.fromarray(getattr(data, name)()).convert("RGB") for name in PHOTOS]
x = torch.cat([classifier.preprocess(classifier.fit(photo)[1]) for photo in photos])
targets = list(PHOTOS.values())
stages = find_stages(classifier.model, x)
name, last = list(stages.items())[-1]
grad_cam = LayerGradCam(classifier.model, last)
maps = {
    "Grad-CAM": grad_cam.attribute(
        x, targets, attribute_to_layer_input=name in stages.at_input, relu_attributions=True
    ),
    "LayerCAM": LayerCam(classifier.model, stages).attribute(x, targets),
    "Region-CAM": LayerRegionCam(classifier.model, stages).attribute(x, targets),
}
titles = [classifier.class_name(target) for target in targets]
figure = show_attributions([np.asarray(photo) for photo in photos], maps, image_title=titles)
figure.savefig(HERE / "region_cam.png", dpi=70)
print(f"Wrote {HERE / 'region_cam.png'}")
