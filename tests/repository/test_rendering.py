"""README and documentation read on GitHub as they do on the documentation's site: plain Markdown, and no dead links."""

import re
from functools import cache
from itertools import pairwise

import pytest
from markdown_it import MarkdownIt
from places import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


@cache
def tokens(page):
    text = page.read_text()
    if page.parent.name == "notebooks":  # what jupytext reads; GitHub shows the notebooks themselves
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    return MarkdownIt("commonmark").enable("table").parse(text)


def inside(page, kind):
    return [child for token in tokens(page) for child in token.children or () if child.type == kind]


@cache
def anchors(page):
    """The names that GitHub gives to a page's headings."""
    parsed = tokens(page)
    titles = [after.content for token, after in pairwise(parsed) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*_]", "", title).lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_pages_are_plain_markdown(page):
    fences = [token.info for token in tokens(page) if token.type == "fence"]
    directives = [info for info in fences if info.startswith("{")]
    if page.parent.name == "notebooks":
        directives = [info for info in directives if info != "{code-cell} ipython3"]
    assert not directives
    texts = [token.content for token in tokens(page) if token.type == "inline"]
    assert not [text for text in texts if text.startswith(":::")]
    assert not [text for text in texts if re.search(r"\{[a-z:]+\}`", text)]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    links = [token.attrs["href"] for token in inside(page, "link_open")]
    links += [token.attrs["src"] for token in inside(page, "image")]
    links += re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", page.read_text())
    for link in links:
        path, _, anchor = link.partition("#")
        if re.match(r"https?://|mailto:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


HOW_TOS = [page for page in PAGES if page.parent.name == "how-to"]


@pytest.mark.parametrize("page", HOW_TOS, ids=lambda page: page.stem)
def test_how_tos_begin_with_something_to_see(page):
    """A picture, a table, or what a command prints or writes."""
    first = [token for token in tokens(page) if token.map and token.map[0] < 8]
    pictures = [child for token in first for child in token.children or () if child.type == "image"]
    for picture in pictures:
        assert re.fullmatch(r"[A-Z].{40,}\.", picture.content), picture.content
    blocks = [token.content for token in first if token.type == "fence" and token.info in ("text", "console")]
    printed = [line for block in blocks for line in block.splitlines() if not re.match(r"\$ | {4}", line)]
    assert pictures or printed or any(token.type == "table_open" for token in first)


def test_pictures_of_how_tos_are_small_and_shown():
    pictures = sorted((ROOT / "docs" / "how-to" / "pictures").iterdir())
    shown = {picture.attrs["src"] for page in HOW_TOS for picture in inside(page, "image")}
    assert {f"pictures/{picture.name}" for picture in pictures} == shown - {"../_static/app.png"}
    sizes = {picture.name: picture.stat().st_size for picture in pictures}
    assert len(sizes) >= 12
    assert max(sizes.values()) < 120_000
    assert sum(sizes.values()) < 1_300_000


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (test_how_tos_begin_with_something_to_see, "# Here\n\nText.\n\n```console\n$ a command\n```"),
        (test_how_tos_begin_with_something_to_see, "# Here\n\nText.\n\n```python\nprint(1)\n```"),
        (test_how_tos_begin_with_something_to_see, "# Here\n\n![No sentence](map.png)"),
        (test_pages_are_plain_markdown, "```{note}\nA box.\n```"),
        (test_pages_are_plain_markdown, ":::{note}\nA box.\n:::"),
        (test_pages_are_plain_markdown, "See {doc}`method`."),
        (test_links_lead_somewhere, "See [the method](method.md)."),
        (test_links_lead_somewhere, "# Here\n\nSee [above](#there)."),
        (test_links_lead_somewhere, '<img src="map.png">'),
    ],
)
def test_other_pages_are_found(check, text, tmp_path):
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(AssertionError):
        check(tmp_path / "page.md")
