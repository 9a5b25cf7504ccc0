"""What imports load: nothing before it is used, and the rooms of the house in one direction."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import captum_regioncam

PACKAGE = Path(captum_regioncam.__file__).parent
HEAVY = {"cv2", "PIL", "torchmetrics", "pycocotools", "rich", "tqdm", "torchvision", "transformers", "timm", "gradio"}
FLOORS = [
    ("errors", "arguments", "lazy", "extras"),
    ("method", "network"),
    ("stages",),
    ("passes", "attribution"),
    ("region_cam", "layer_cam"),
    ("scores", "refinement", "regions", "pictures", "visualization"),
    ("files",),
    ("evaluation",),
    ("samples", "app"),
    ("cli", "__main__"),
]
"""From the ground up: a module imports from its own floor and from those below."""


def loaded(code):
    """The names of the top-level modules that a program loads."""
    program = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    return set(ended.stdout.split())


@pytest.mark.parametrize(
    ("code", "without"),
    [
        ("import captum_regioncam, captum_regioncam.evaluation", {*HEAVY, "torch", "captum", "numpy", "matplotlib"}),
        ("from captum_regioncam.cli.parser import build_parser\nbuild_parser()", {*HEAVY, "torch", "captum", "numpy"}),
        ("from captum_regioncam import LayerRegionCam, find_stages", HEAVY - {"PIL", "tqdm"}),  # which Captum loads
        (
            "from captum_regioncam.evaluation import Voc2012, Seed, load_seed, label_map",
            {"cv2", "torchmetrics", "rich"},
        ),
        ("from captum_regioncam.cli import app", {"gradio", "cv2"}),
    ],
)
def test_what_is_loaded(code, without):
    assert not loaded(code) & without


def test_every_public_name_is_listed_and_found():
    for package in (captum_regioncam, captum_regioncam.evaluation):
        assert set(package.__all__) <= set(dir(package))
        assert all(getattr(package, name) is not None for name in package.__all__)
        # Importing a module sets its name in the package, and would replace a function of that name.
        assert not set(package.__all__) & {module.name for module in pkgutil.iter_modules(package.__path__)}
        with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
            package.nonsense  # noqa: B018


def test_imports_run_one_way():
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    for path in PACKAGE.rglob("*.py"):
        home = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if home == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("captum_regioncam."):
                room = node.module.split(".")[1]
                assert floor_of[room] <= floor_of[home], f"{path.relative_to(PACKAGE)} imports {node.module}"
