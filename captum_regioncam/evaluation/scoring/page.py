"""A page of photos, their maps and scores: a single file that contains everything, and that sorts without a server."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from captum_regioncam.files.text import counted, printable

__all__ = ["Line", "page"]


class Line(NamedTuple):
    """A photo on the page.

    Attributes:
        name: the photo's name.
        classes: the names of its classes.
        shared: its own pictures, by what they show, as ``data:`` addresses.
        methods: for each method, its pictures, its score in percent, and the section that the photo is in.
    """

    name: str
    classes: str
    shared: Mapping[str, str]
    methods: Mapping[str, tuple[Mapping[str, str], float, str]]


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="{generator}">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light; --line: #ddd; --soft: #666; }}
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 0; color: #111; background: #fff; display: flex; \
flex-direction: column; height: 100vh; }}
header {{ padding: 12px 16px; }}
h1 {{ font-size: 18px; margin: 0; }}
p {{ margin: 4px 0 0; color: var(--soft); }}
.scroll {{ overflow: auto; flex: 1; }}
table {{ border-collapse: separate; border-spacing: 0; }}
th, td {{ padding: 6px 8px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: middle; }}
thead th {{ position: sticky; top: 0; background: #f4f4f4; z-index: 2; white-space: nowrap; }}
tbody th {{ position: sticky; left: 0; background: #fff; z-index: 1; font-weight: 600; width: 150px; min-width: 120px; \
max-width: 180px; overflow-wrap: anywhere; }}
thead th:first-child {{ left: 0; z-index: 3; }}
thead th.first {{ white-space: normal; max-width: 96px; overflow-wrap: anywhere; }}
tbody th small, td small {{ display: block; font-weight: 400; color: var(--soft); }}
.first {{ border-left: 1px solid var(--line); }}
img {{ display: block; max-width: {side}px; max-height: {side}px; }}
td.score {{ font-variant-numeric: tabular-nums; font-size: 16px; white-space: nowrap; }}
button {{ font: inherit; font-weight: 600; border: 0; background: none; padding: 2px 0; cursor: pointer; \
color: inherit; text-align: left; }}
button:hover, button:focus-visible {{ text-decoration: underline; }}
th[aria-sort=descending] button::after {{ content: " \\2193"; }}
th[aria-sort=ascending] button::after {{ content: " \\2191"; }}
@media (max-width: 700px) {{
  img {{ max-width: 110px; max-height: 110px; }}
  tbody th {{ width: 92px; min-width: 92px; max-width: 92px; font-size: 12px; }}
  th, td {{ padding: 4px 5px; }}
}}
</style>
</head>
<body>
<header><h1>{title}</h1><p>{subtitle}</p></header>
<div class="scroll" tabindex="0"><table>
<thead><tr>{header}</tr></thead>
<tbody>
{lines}
</tbody>
</table></div>
<script>
const table = document.querySelector("table"), body = table.tBodies[0];
function sort(head, direction) {{
  const sign = direction === "ascending" ? 1 : -1, column = head.cellIndex;
  const value = line => line.cells[column].dataset.value;
  const compare = head.dataset.kind === "text"
    ? (a, b) => value(a).localeCompare(value(b), "en", {{numeric: true}}) : (a, b) => value(a) - value(b);
  [...body.rows].sort((a, b) => sign * compare(a, b)).forEach(line => body.append(line));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
}}
for (const button of table.tHead.querySelectorAll("button")) button.addEventListener("click", () => {{
  const head = button.closest("th"), first = head.dataset.kind === "text" ? "ascending" : "descending";
  const other = first === "ascending" ? "descending" : "ascending";
  sort(head, head.getAttribute("aria-sort") === first ? other : first);
}});
</script>
</body>
</html>
"""


def page(lines: Sequence[Line], methods: Mapping[str, str], title: str, generator: str) -> bytes:
    """Return the content of the page: a line for each photo, sorted by the first method's scores, the best first.

    Args:
        lines: the photos.
        methods: the methods, and their titles on the page.
        title: the page's title.
        generator: what wrote the page.
    """
    first = next(iter(methods), None)
    ranked = sorted(lines, key=lambda line: -line.methods[first][1]) if first is not None else list(lines)
    shared = list(ranked[0].shared) if ranked else []
    header = ['<th data-kind="text"><button>name</button></th>', *(f"<th>{_text(what)}</th>" for what in shared)]
    for place, (method, called) in enumerate(methods.items()):
        is_sorted = ' aria-sort="descending"' if place == 0 else ""
        header.append(f'<th class="first"{is_sorted}><button>{_text(called)}: IoU</button></th>')
        header += [f"<th>{_text(what)}</th>" for what in (ranked[0].methods[method][0] if ranked else ())]
    side = 190 if len(methods) == 1 else 150
    content = _PAGE.format(
        title=_text(title),
        generator=_text(generator),
        subtitle=f"{counted(len(ranked), 'photo')}: the best, the median and the worst of "
        f"{_text(', '.join(methods.values()))}. Click on the title of a column to sort by it.",
        header="".join(header),
        lines="\n".join(_line(line, methods) for line in ranked),
        side=side,
    )
    return content.encode()


def _line(line: Line, methods: Mapping[str, str]) -> str:
    name = _text(line.name)
    cells = [f'<th scope="row" data-value="{name}">{name}<small>{_text(line.classes)}</small></th>']
    cells += [_picture(address, f"{what} of {line.name}") for what, address in line.shared.items()]
    for method, called in methods.items():
        pictures, score, section = line.methods[method]
        cells.append(f'<td class="first score" data-value="{score:.4f}">{score:.1f}<small>{section}</small></td>')
        cells += [_picture(address, f"{what} of {called}, {line.name}") for what, address in pictures.items()]
    return f"<tr>{''.join(cells)}</tr>"


def _picture(address: str, alternative: str) -> str:
    return f'<td><img alt="{_text(alternative)}" src="{address}"></td>'


def _text(text: str) -> str:
    return escape(printable(text))
