"""Draw the README's picture, docs/region_cam.png, and region_cam_narrow.png for narrow screens: ``make picture``."""

from pathlib import Path

import numpy as np
import torch
from captum.attr import LayerGradCam
from matplotlib.figure import Figure
from PIL import Image
from skimage import data

from captum_regioncam import LayerRegionCam, find_stages, overlay, refine
from captum_regioncam.evaluation import Classifier

HERE = Path(__file__).parent
# From scikit-image: Egyptian cat, missile, espresso, and a tripod, on a photo cut to the others' proportions
PHOTOS = {285: data.chelsea(), 657: data.rocket(), 967: data.coffee(), 872: data.camera()[110:451]}

classifier = Classifier.load()
photos = [Image.fromarray(photo).convert("RGB") for photo in PHOTOS.values()]
x = torch.cat([classifier.preprocess(classifier.fit(photo)[1]) for photo in photos])
targets = list(PHOTOS)
stages = find_stages(classifier.model, x)
name, last = list(stages.items())[-1]
grad_cam = LayerGradCam(classifier.model, last)
region_cam = LayerRegionCam(classifier.model, stages).attribute(x, targets)
maps = {
    "Grad-CAM": grad_cam.attribute(
        x, targets, attribute_to_layer_input=name in stages.at_input, relu_attributions=True
    ).detach(),
    "Region-CAM, refined": [refine(one, photo) for one, photo in zip(region_cam, photos, strict=True)],
}


def draw(photos_in_a_row, width):
    """Return a figure of panels that are ``width`` inches wide."""
    rows = len(photos) // photos_in_a_row
    columns = photos_in_a_row * (1 + len(maps))
    figure = Figure(figsize=(width * columns, (0.67 * width + 0.3) * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    axes = iter(figure.subplots(rows, columns).flatten())
    for index, photo in enumerate(np.asarray(photo.resize((480, 320))) for photo in photos):
        panels = {classifier.class_name(targets[index]): photo}
        panels |= {method: overlay(photo, found[index]) for method, found in maps.items()}
        for title, panel in panels.items():
            axis = next(axes)
            axis.imshow(panel)
            axis.set_axis_off()
            axis.set_title(title, fontsize=11)
    return figure


for file, figure in {"region_cam.png": draw(2, 1.9), "region_cam_narrow.png": draw(1, 1.6)}.items():
    figure.savefig(HERE / file, dpi=120)
    print(f"Wrote {HERE / file}")
