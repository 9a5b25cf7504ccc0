"""The reference has each public name once, with an example and its output, and pictures that its own code draws."""

import doctest
import inspect
import re
import runpy
from collections import Counter
from pkgutil import resolve_name

import pytest
from made_datasets import ColourNet
from places import ROOT

import captum_regioncam
from captum_regioncam import evaluation, samples

REFERENCE = ROOT / "docs" / "reference"
PAGES = [page.read_text() for page in sorted(REFERENCE.glob("*.rst"))]
PUBLIC = [
    f"{package.__name__}.{name}"
    for package in (captum_regioncam, evaluation, samples)
    for name in package.__all__
    if name != "__version__"
]


def documented():
    """What the pages show: (directive, dotted name)."""
    for page in PAGES:
        for kind, name, options in re.findall(r"^ *\.\. auto(\w+):: (\S+)\n((?: +:.*\n)*)", page, re.MULTILINE):
            members = re.findall(r":members: (.+)", options)
            assert len(members) == options.count("\n"), (name, options)  # other options show what is not named here
            yield kind, name
            yield from (("member", f"{name}.{member}") for names in members for member in names.split(", "))


SHOWN = list(documented())
WITH_DOCSTRINGS = [name for kind, name in SHOWN if kind != "data"]  # of data, a page shows the value


def test_every_public_name_is_there_once():
    counts = Counter(name for _, name in SHOWN)
    assert {name: counts[name] for name in PUBLIC} == dict.fromkeys(PUBLIC, 1)
    assert counts.most_common(1)[0][1] == 1


@pytest.mark.parametrize("name", WITH_DOCSTRINGS)
def test_every_name_has_an_example_with_output(name):
    value = resolve_name(name)
    home = inspect.getmodule(getattr(value, "fget", value))
    assert home.__name__.startswith("captum_regioncam"), "is inherited"
    assert any(example.want for example in doctest.DocTestParser().get_examples(inspect.getdoc(value)))


@pytest.mark.parametrize("name", WITH_DOCSTRINGS)
def test_results_are_not_read_as_types(name):
    """Sphinx takes what is before a colon for a type: in the first line of a result, and of a property."""
    value = resolve_name(name)
    lines = re.findall(r"^Returns:\n +(.+)", inspect.getdoc(value), re.MULTILINE)
    if isinstance(value, property):
        lines.append(inspect.getdoc(value).partition("\n")[0])
    for line in lines:
        assert ":" not in re.sub(r":\w+:`[^`]+`|``[^`]+``", "", line)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The maps of examples")  # random weights
def test_pages_have_the_pictures_that_their_code_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "load_demo_model", lambda: evaluation.Classifier(ColourNet(1000).eval(), size=64))
    script = runpy.run_path(str(ROOT / "docs" / "make_reference_pictures.py"))
    monkeypatch.chdir(tmp_path)
    for page in script["PAGES"]:
        script["draw"](page, tmp_path)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert len(drawn) >= 15
    assert sorted(re.findall(r"\.\. figure:: pictures/(\S+)", "".join(PAGES))) == drawn
    sizes = {path.name: path.stat().st_size for path in (REFERENCE / "pictures").iterdir()}
    assert sorted(sizes) == drawn
    assert max(sizes.values()) < 80_000
    assert sum(sizes.values()) < 700_000
