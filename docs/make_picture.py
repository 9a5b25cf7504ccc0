"""Draw the README's picture, docs/region_cam.png, and region_cam_narrow.png for narrow screens: ``make picture``."""

from pathlib import Path

import numpy as np
from captum.attr import LayerGradCam
from matplotlib.figure import Figure
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

from captum_regioncam import LayerRegionCam, cut_out, find_stages, refine, to_mask
from captum_regioncam.samples import load_demo_model

HERE = Path(__file__).parent
THRESHOLD = 0.15  # of both methods, as IRN cuts seeds
SIZE = (480, 320)
# From scikit-learn and scikit-image, and the classes that are explained. Two are of one scene, the last is a failure.
FLOWER, PAGODA = load_sample_image("flower.jpg"), load_sample_image("china.jpg")
EXAMPLES = {
    "daisy": (FLOWER, 985),
    "bell cote": (PAGODA, 442),
    "missile": (data.rocket(), 657),
    "drilling platform": (data.rocket(), 540),
    "espresso": (data.coffee(), 967),
    "failure: tripod": (data.camera()[110:451], 872),
}

demo = load_demo_model()


def panels(pixels, target):
    """Return the pictures of a photo, by their titles, and the probability of the class."""
    photo = Image.fromarray(pixels).convert("RGB").resize(SIZE)
    x = demo.transform(photo)
    probability = float(demo.model(x).detach().softmax(1)[0, target])
    stages = find_stages(demo.model, x)
    name, last = list(stages.items())[-1]
    options = {"attribute_to_layer_input": name in stages.at_input, "relu_attributions": True}
    maps = {
        "Grad-CAM": LayerGradCam(demo.model, last).attribute(x, target, **options).detach(),
        "Region-CAM": refine(LayerRegionCam(demo.model, stages).attribute(x, target), photo),
    }
    cut = {
        method: cut_out(np.asarray(photo), to_mask(found, threshold=THRESHOLD, size=SIZE[::-1]))
        for method, found in maps.items()
    }
    return {"": np.asarray(photo), **cut}, probability


def draw(examples_in_a_row, width):
    """Return a figure of panels that are ``width`` inches wide."""
    rows = len(found) // examples_in_a_row
    figure = Figure(figsize=(3 * width * examples_in_a_row, (0.67 * width + 0.27) * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    axes = iter(figure.subplots(rows, 3 * examples_in_a_row).flatten())
    for name, (pictures, probability) in found.items():
        for title, picture in pictures.items():
            axis = next(axes)
            axis.imshow(picture)
            axis.set_axis_off()
            axis.set_title(title or f"{name}, {probability:.0%}", fontsize=10)
    return figure


found = {name: panels(*example) for name, example in EXAMPLES.items()}
for file, figure in {"region_cam.png": draw(2, 1.9), "region_cam_narrow.png": draw(1, 1.6)}.items():
    figure.savefig(HERE / file, dpi=120)
    print(f"Wrote {HERE / file}")
