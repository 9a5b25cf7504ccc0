"""Draw the first picture of each page of docs/how-to, docs/how-to/pictures/PAGE: ``make picture``.

The maps are those of EfficientNet-Lite0, or of what the page's notebook builds. The photos come with packages.
"""

import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from captum.attr import LayerGradCam
from captum.attr import visualization as viz
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))
import torchvision_schemas  # noqa: E402, F401

from captum_regioncam import LayerRegionCam, cut_out, find_stages, overlay, refine, to_boxes, to_hwc, to_mask  # noqa: E402
from captum_regioncam.cli import main  # noqa: E402
from captum_regioncam.evaluation import load_seed  # noqa: E402
from captum_regioncam.samples import TARGETS, load_demo_model, outline, photo  # noqa: E402

PICTURES = HERE / "how-to" / "pictures"
WIDTH, GAP, LINE = 7, 0.06, 0.36  # inches: of a picture, between panels, of titles; a telephone shows half the size
PHOTOS = {
    **{name: photo(name) for name in TARGETS},
    "flower": Image.fromarray(load_sample_image("flower.jpg")),
    "pagoda": Image.fromarray(load_sample_image("china.jpg")),
}
CLASSES = {**TARGETS, "flower": 985, "pagoda": 442}  # ImageNet's daisy and bell cote
OUTLINED = ("cat", "cup", "motorcycle")

demo = load_demo_model()
stages = find_stages(demo.model, demo.transform(PHOTOS["cat"]))
region_cam = LayerRegionCam(demo.model, stages)


def explained(name):
    """Return a photo, the network's input and its class."""
    return PHOTOS[name], demo.transform(PHOTOS[name]), CLASSES[name]


def grid(columns, titles, photo):
    """Return a figure for photos of one size, and its axes."""
    rows = -(-len(titles) // columns)
    width = (WIDTH - GAP) / columns - GAP
    height = width * photo.height / photo.width
    tall = rows * (height + LINE) + GAP
    figure = Figure(figsize=(WIDTH, tall), dpi=100)
    axes = []
    for place, title in enumerate(titles):
        row, column = divmod(place, columns)
        left, bottom = GAP + column * (width + GAP), tall - (row + 1) * (height + LINE)
        axes.append(figure.add_axes((left / WIDTH, bottom / tall, width / WIDTH, height / tall)))
        axes[-1].set_axis_off()
        axes[-1].set_title(title, fontsize=15, pad=5)
    return figure, axes


def save(page, figure):
    """Write a figure as the picture of a page."""
    figure.savefig(PICTURES / f"{page}.jpg", pil_kwargs={"quality": 85, "optimize": True})


def save_panels(page, panels, columns=2):
    """Write pictures of one size, by their titles, as the picture of a page."""
    panels = {title: Image.fromarray(np.asarray(panel)) for title, panel in panels.items()}
    figure, axes = grid(columns, list(panels), next(iter(panels.values())))
    for axis, panel in zip(axes, panels.values(), strict=True):
        axis.imshow(panel)
    save(page, figure)


def run(command):
    """Run a command line in the current folder."""
    if status := main(shlex.split(command)[1:]):
        raise SystemExit(f"{command}: status {status}")


def cells(notebook):
    """Run the cells of a notebook's source, except those that install; return their variables."""
    source = (HERE / "notebooks" / f"{notebook}.md").read_text()
    found = re.findall(r"```\{code-cell\} ipython3\n(?::tags: [^\n]*\n\n)?(.*?)```", source, re.DOTALL)
    variables = {}
    for cell in found:
        if not cell.startswith("%"):
            exec(cell, variables)
    return variables


def captum():
    """Captum's own drawing of its LayerGradCam, and of what takes its place."""
    image, x, target = explained("flower")
    name, last = list(stages.items())[-1]
    maps = {
        "LayerGradCam": LayerGradCam(demo.model, last).attribute(
            x, target, attribute_to_layer_input=name in stages.at_input, relu_attributions=True
        ),
        "LayerRegionCam": region_cam.attribute(x, target),
    }
    figure, axes = grid(2, maps, image)
    for axis, attribution in zip(axes, maps.values(), strict=True):
        viz.visualize_image_attr(
            to_hwc(attribution, (image.height, image.width)),
            np.asarray(image),
            method="blended_heat_map",
            sign="positive",
            cmap="jet",
            plt_fig_axis=(figure, axis),
            use_pyplot=False,
        )
        axis.set_axis_off()
    save("captum", figure)


def choose_layers():
    """Each stage alone, and all together."""
    image, x, target = explained("cat")
    panels = {}
    for name, layer in stages.items():
        alone = LayerRegionCam(demo.model, layer)
        attribution = alone.attribute(x, target, attribute_to_layer_input=name in stages.at_input)
        panels["{} x {} alone".format(*attribution.shape[2:])] = overlay(image, attribution)
    panels["all five"] = overlay(image, region_cam.attribute(x, target))
    save_panels("choose-layers", panels, columns=3)


def command_line():
    """What --overlay writes, under the names of the files."""
    Path("photos").mkdir()
    for name in ("cup", "cat"):
        PHOTOS[name].resize((600, 400)).save(f"photos/{name}.jpg", quality=95)
    run("captum-regioncam explain photos --method grad-cam,region-cam --output maps --overlay")
    files = sorted(Path("maps").glob("*_*_*.png"))
    save_panels("command-line", {path.name: Image.open(path) for path in files})


def compare():
    """The methods of the command line on one photo."""
    PHOTOS["pagoda"].save("pagoda.png")
    methods = {"grad-cam": "Grad-CAM", "layer-cam": "LayerCAM", "region-cam": "Region-CAM"}
    run(f"captum-regioncam explain pagoda.png --target 442 --method {','.join(methods)} --output maps --overlay")
    panels = {title: Image.open(next(Path("maps").glob(f"*_{name}_*.png"))) for name, title in methods.items()}
    save_panels("compare", {"photo": PHOTOS["pagoda"], **panels})


def gpu():
    """The map in two precisions."""
    image, x, target = explained("cup")
    precise = region_cam.attribute(x, target)
    with torch.autocast("cpu", torch.bfloat16):
        quick = region_cam.attribute(x, target)
    print(f"gpu: maps differ by {(precise - quick).abs().mean():.4f} on average")
    save_panels("gpu", {"float32": overlay(image, precise), "bfloat16": overlay(image, quick)})


def many_classes():
    """The maps of two photos' classes in one picture of both, as in the notebook."""
    names = ("cat", "motorcycle")
    collage = Image.new("RGB", (448, 224))
    for place, name in enumerate(names):
        collage.paste(PHOTOS[name].resize((224, 224)), (224 * place, 0))
    x = demo.preprocess(collage)
    probabilities = demo.model(x).detach().softmax(1)[0]
    targets = [CLASSES[name] for name in names]
    maps = region_cam.attribute_targets(x, targets)[0]
    titles = [f"{demo.class_name(target)}, {probabilities[target]:.1%}" for target in targets]
    save_panels("many-classes", {title: overlay(collage, one) for title, one in zip(titles, maps, strict=True)})


def masks():
    """From the map to masks and a box."""
    image, x, target = explained("motorcycle")
    size = image.height, image.width
    attribution = region_cam.attribute(x, target)
    [[box]] = to_boxes(attribution, threshold=0.15, size=size)
    boxed = image.copy()
    ImageDraw.Draw(boxed).rectangle(box.tolist(), outline="white", width=4)
    panels = {
        "map": overlay(image, attribution),
        "mask at 0.15": cut_out(image, to_mask(attribution, threshold=0.15, size=size)),
        "refined mask": cut_out(image, to_mask(refine(attribution, image), threshold=0.15, size=size)),
        "box": boxed,
    }
    save_panels("masks", panels)


def outputs():
    """The segmentation network of the notebook."""
    found = cells("outputs")
    panels = {
        "moped, in the whole photo": overlay(found["image"], found["whole"]),
        "moped, in the right half": overlay(found["image"], found["half"]),
    }
    save_panels("outputs", panels)


def make_folder(root):
    """Write the photos with outlines as a data set of the layout ``folder``."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for name in OUTLINED:
        PHOTOS[name].resize((600, 400)).save(root / "images" / f"{name}.jpg", quality=95)
        Image.fromarray(outline(name)).convert("L").resize((600, 400)).save(root / "masks" / f"{name}.png")
    (root / "index.json").write_text(json.dumps([{"name": name, "target": TARGETS[name]} for name in OUTLINED]))


def scores():
    """The curves that --plot draws."""
    make_folder(Path("photos"))
    run("captum-regioncam evaluate folder --root photos --method grad-cam,layer-cam,region-cam --plot miou.png")
    shutil.copy("miou.png", PICTURES / "scores.png")


def seeds():
    """Seeds over their photos, and the label maps."""
    make_folder(Path("photos"))
    run("captum-regioncam seeds folder --root photos --scales 1,0.5,1.5,2 --flip --output seeds")
    run("captum-regioncam label-maps seeds --output labels")
    images = {name: Image.open(f"photos/images/{name}.jpg") for name in OUTLINED}
    maps = {name: load_seed(f"seeds/{name}.npy").high_res[0] for name in OUTLINED}
    panels = {f"{name}: seed": overlay(images[name], maps[name]) for name in OUTLINED}
    panels |= {f"{name}: labels": Image.open(f"labels/{name}.png").convert("RGB") for name in OUTLINED}
    save_panels("seeds", panels, columns=3)


def transformers():
    """The small transformer that the notebook trains."""
    found = cells("transformer")
    photos = [Image.fromarray((one.permute(1, 2, 0).numpy() * 255).astype(np.uint8)) for one in found["photos"][:3]]
    maps = found["maps"]["Region-CAM"]
    panels = dict(zip(found["names"], photos, strict=False))
    panels |= {f"map {place + 1}": overlay(image, maps[place]) for place, image in enumerate(photos)}
    save_panels("transformers", panels, columns=3)


def two_halves():
    """Semantics of the network and of a scribble, and what looks like them."""
    image, x, target = explained("flower")
    semantics = region_cam.semantics(x, [target])
    scribble = torch.zeros(1, 1, *x.shape[2:])
    scribble[..., 110:120, 95:130] = 1  # of 224 x 224
    panels = {
        "semantics": overlay(image, semantics),
        "propagated": overlay(image, region_cam.propagate(x, semantics)),
        "a scribble": overlay(image, scribble),
        "what looks alike": overlay(image, region_cam.propagate(x, scribble)),
    }
    save_panels("two-halves", panels)


ALL = (
    *(captum, choose_layers, command_line, compare, gpu, many_classes, masks),
    *(outputs, scores, seeds, transformers, two_halves),
)

if __name__ == "__main__":
    for draw in ALL:
        if len(sys.argv) > 1 and draw.__name__ not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            draw()
            print(f"Drew the picture of {draw.__name__}")
            os.chdir(HERE)
