"""Sphinx configuration."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import captum_regioncam

# What IPython runs when a notebook's kernel starts: the tests' remedy for a torchvision built against CUDA.
_startup = Path(tempfile.mkdtemp()) / "profile_default" / "startup"
_startup.mkdir(parents=True)
shutil.copy(Path(__file__).parent.parent / "tests" / "torchvision_schemas.py", _startup)
os.environ["IPYTHONDIR"] = str(_startup.parent.parent)

project = "captum_regioncam"
copyright = "2026, the captum_regioncam developers"
version = release = captum_regioncam.__version__
extensions = [
    "myst_nb",  # executes docs/notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # copies MathJax beside the pages
    "sphinx_copybutton",
    "sphinx_design",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
# torchmetrics imports torchvision wherever there is one, which may belong to another torch.
autodoc_mock_imports = ["torchvision"]
autodoc_member_order = "bysource"
exclude_patterns = ["_build"]  # what an earlier build left
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_title = "Region-CAM"
copybutton_prompt_text = "$ "  # what is not copied

# How signatures show types that stand for many, and defaults that a function makes or that are long.
_READABLE = {
    r"~?[\w.]*ndarray\[~?[\w.]*tuple\[~?[\w.]*Any, \.\.\.\], ~?[\w.]*dtype\[(.+?)\]\]": r"~numpy.typing.NDArray[\1]",
    r"[~\w.]*_Buffer \| .+?_NestedSequence\[complex \| bytes \| str\]": "~numpy.typing.ArrayLike",
    r"~?collections\.abc\.": "",
    r"<factory>": "{}",
    r"np\.float64\(([\d.]+)\)": r"\1",
    r"\(([\d.]+, [\d.]+), (?:[\d.]+, ){9,}([\d.]+)\)": r"(\1, ..., \2)",
}


def _readable(text):
    for pattern, short in _READABLE.items():
        text = re.sub(pattern, short, text)
    return text


def _signature(app, what, name, obj, options, signature, returned):
    if getattr(obj, "_is_protocol", False):
        return "", None  # instead of the constructor that all protocols have
    return signature and _readable(signature), returned and _readable(returned)


def _types(app, what, name, obj, options, lines):
    for number, line in enumerate(lines):
        if line.lstrip().startswith(":type: "):
            lines[number] = _readable(line).replace("~numpy.typing.", "")


def setup(app):
    """Connect what Sphinx calls."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _types, priority=900)  # after napoleon
