"""Sphinx configuration."""

import captum_regioncam

project = "captum_regioncam"
copyright = "2026, the captum_regioncam developers"
version = release = captum_regioncam.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
autodoc_typehints = "none"
# torchmetrics imports torchvision wherever there is one, which may belong to another torch.
autodoc_mock_imports = ["torchvision"]
autodoc_member_order = "bysource"
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "captum_regioncam"
