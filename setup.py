"""Setuptools reads setup.cfg. The README's links, which lead to files, become those of the documentation's site."""

import re
from pathlib import Path

from setuptools import setup

SITE = "https://captum-regioncam.readthedocs.io/en/latest"


def readme_for_pypi(text: str) -> str:
    """Return the README with absolute links, as PyPI has none of the files that the links lead to."""
    text = text.replace("](CONTRIBUTING.md)", f"]({SITE}/contributing.html)")
    text = text.replace("](CHANGELOG.md)", f"]({SITE}/changelog.html)")
    text = re.sub(r"\]\((?:docs/)?(notebooks/[\w-]+)\.ipynb", rf"]({SITE}/\1.html", text)
    text = re.sub(r"\]\(docs/([\w/-]+)\.md", rf"]({SITE}/\1.html", text)
    text = re.sub(r"(src=\"|srcset=\"|\]\()docs/(?:_static/)?([\w-]+\.png)", rf"\1{SITE}/_images/\2", text)
    return re.sub(r"\[([^\]]+)\]\((?!https?://)[^)]+\)", r"\1", text)  # what the site does not have


if __name__ == "__main__":
    readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    setup(long_description=readme_for_pypi(readme), long_description_content_type="text/markdown")
