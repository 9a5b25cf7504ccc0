"""The workflows, the Makefile and the bounds on dependencies."""

import json
import re
from configparser import ConfigParser

import pytest
from places import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def recipes():
    """The commands of each target of the Makefile."""
    found = {}
    for line in (ROOT / "Makefile").read_text().splitlines():
        if match := re.match(r"([\w$()/.-]+):(?!=)", line):
            commands = found.setdefault(match[1], [])
        elif line.startswith("\t"):
            commands.append(line.strip())
    return found


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_do_little_and_run_what_was_reviewed(workflow):
    text = workflow.read_text()
    assert "\npermissions:\n  contents: read\n" in text
    assert "\nconcurrency:\n  group: ${{ github.workflow }}-${{ github.ref }}\n" in text
    uses = re.findall(r"uses: (.*)", text)
    assert len(uses) >= 3
    for action in uses:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    assert text.count("persist-credentials: false") == text.count("uses: actions/checkout@")
    assert text.count("timeout-minutes: ") == text.count("runs-on: ")


def test_continuous_integration_gives_way_and_caches():
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "\n  cancel-in-progress: ${{ github.event_name == 'pull_request' }}\n" in text
    cache = "cache: pip\n          cache-dependency-path: |\n            setup.cfg\n            constraints*.txt\n"
    assert text.count(cache) == text.count("uses: actions/setup-python@") == 3


def test_the_wheel_that_is_published_is_tested():
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    build, publish = text.split("\n  publish:\n")
    assert build.index("make check dist test-dist") < build.index("actions/upload-artifact@")
    assert "id-token: write" in publish
    assert "write" not in build
    commands = recipes()["test-dist"]
    assert '"$$(ls dist/*.whl)[app,demo,eval,test]"' in commands
    assert "git ls-files | grep -v ^captum_regioncam/ | tar -c -T - | tar -x -C build/tested" in commands
    assert "cd build/tested && $(TEST)" in commands


def test_make_docs_changes_nothing_that_is_tracked():
    commands = recipes()["docs"]
    assert "git status --porcelain | diff docs/_build/before -" in commands
    for script in ("make_picture", "make_how_to_pictures"):
        assert [target for target, lines in recipes().items() if any(script in line for line in lines)] == ["picture"]
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert [line for line in ignored if line.startswith("docs")] == ["docs/_build/"]


def test_the_oldest_versions_are_those_that_setup_cfg_allows():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    required = "\n".join([config["options"]["install_requires"], extras["demo"], extras["eval"]])
    bounds = dict(re.findall(r"^([\w-]+)>=([\d.]+)", required, re.MULTILINE))
    assert set(bounds) == {"torch", "captum", "numpy", "matplotlib", "pillow", "filelock", "safetensors"}
    oldest = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints-oldest.txt").read_text(), re.MULTILINE))
    for name, version in bounds.items():
        assert oldest[name] == f"{version}.0", name
    for extra in ("demo", "eval"):
        assert "pillow>=10.1" in extras[extra].splitlines()


def test_every_notebook_has_its_outputs():
    """That its cells and numbers are those of its source, make docs checks (docs/make_notebooks.py)."""
    sources = {path.stem for path in (ROOT / "docs" / "notebooks").glob("*.md")}
    notebooks = {path.stem: json.loads(path.read_text()) for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks.keys() == sources
    for name, notebook in notebooks.items():
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        install, *others = code
        assert re.search(r'^%pip install -q "\.\.\[\w+', "".join(install["source"]), re.MULTILINE), name
        assert all(cell["execution_count"] for cell in others), name
        outputs = [output for cell in others for output in cell["outputs"]]
        assert not [output for output in outputs if output["output_type"] == "error"], name
        assert any("image/" in kind for output in outputs for kind in output.get("data", ())), name
