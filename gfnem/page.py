"""A web page in one file: blocks of content, and the HTML that holds them.

Nothing is loaded from elsewhere and nothing needs JavaScript: styles and pictures are in the file.
Every text is escaped here, so blocks take words of any corpus as they are.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# what HTML forbids in a document; tab and line feed are white space
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escape(text: Any) -> str:
    """A text as HTML, for elements and for quoted attributes."""
    return html.escape(_CONTROL.sub("\ufffd", str(text)))


class Block(Protocol):
    """A piece of a section: whatever has `html()`, an element whose texts are escaped."""

    def html(self) -> str:
        """The block as HTML."""
        ...


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: what it says.
        remark: whether it stands out, as something to know before the figures are believed.
    """

    text: str
    remark: bool = False

    def html(self) -> str:
        """A `p` element."""
        kind = ' class="remark"' if self.remark else ""
        return f"<p{kind}>{escape(self.text)}</p>"


@dataclass(frozen=True)
class Share:
    """A number between 0 and 1, drawn as a bar.

    Attributes:
        value: the number; NaN is none.
        text: what stands beside the bar; the percentage where it is empty.
    """

    value: float
    text: str = ""

    def html(self) -> str:
        """A bar and what stands beside it."""
        width = 100 * min(max(self.value, 0.0), 1.0) if self.value == self.value else 0.0
        return (
            f'<span class="share"><span class="bar"><span style="width:{width:.1f}%"></span></span>'
            f"{escape(self.text) or percent(self.value)}</span>"
        )


@dataclass(frozen=True)
class Parts:
    """What something is made of: names with their shares.

    Attributes:
        parts: pairs of a name and a probability.
        none: what to say where there is none.
    """

    parts: Sequence[tuple[str, float]]
    none: str = ""

    def html(self) -> str:
        """One `span` for each pair; names of any script stay apart from their neighbours."""
        return " ".join(
            f'<span class="part"><bdi>{escape(name)}</bdi> <small>{percent(p)}</small></span>'
            for name, p in self.parts
        ) or escape(self.none)


@dataclass(frozen=True)
class Table:
    """Rows of texts, numbers or blocks under a head, in a box that scrolls by itself.

    Attributes:
        head: titles of the columns.
        rows: cells; a `float` is shown with four significant digits.
        caption: what the table says.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""

    def html(self) -> str:
        """A `table` element in a box."""
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        head = "".join(f'<th scope="col">{escape(title)}</th>' for title in self.head)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in self.rows)
        return (
            f'<div class="box"><table>{caption}<thead><tr>{head}</tr></thead>\n'
            f"<tbody>{body}</tbody></table></div>"
        )


@dataclass(frozen=True)
class Picture:
    """A picture with what it shows.

    Attributes:
        content: the bytes of a PNG file, or an SVG element whose texts are escaped.
        caption: what is to be seen.
        drawing: whether it is lines on white, whose light and dark may be swapped on a dark page;
            False for pictures whose grey values mean something.
        wide: whether a narrow screen scrolls it instead of making it smaller.
    """

    content: bytes | str
    caption: str = ""
    drawing: bool = True
    wide: bool = False

    def html(self) -> str:
        """A `figure` element."""
        if isinstance(self.content, bytes):
            data = base64.b64encode(self.content).decode("ascii")
            source = f"data:image/png;base64,{data}"
            inside = f'<img src="{source}" alt="{escape(self.caption or "picture")}">'
        else:
            inside = self.content
        kind = f"{'drawing' if self.drawing else 'image'}{' wide' if self.wide else ''}"
        caption = f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else ""
        return f'<figure class="{kind}"><div class="box">{inside}</div>{caption}</figure>'


@dataclass(frozen=True)
class Row:
    """Small pictures side by side, as many as the screen is wide."""

    blocks: Sequence[Block]

    def html(self) -> str:
        """A grid."""
        return f'<div class="row">{_html(self.blocks)}</div>'


@dataclass(frozen=True)
class Choice:
    """One structure that an observation may have.

    Attributes:
        shares: how probable it is, by who says so (such as `{"model": 0.6, "sampler": 0.5}`).
        block: the structure.
    """

    shares: dict[str, float]
    block: Block


@dataclass(frozen=True)
class Posterior:
    """An observation with its structures, each beside bars of its probability.

    Attributes:
        title: the observation.
        choices: structures, the most probable first.
        rest: what is to be said of all the others.
        block: the observation itself, where a title does not say it.
        tiles: whether the structures are small pictures, which stand side by side.
    """

    title: str
    choices: Sequence[Choice]
    rest: str = ""
    block: Block | None = None
    tiles: bool = False

    def html(self) -> str:
        """A heading and a list."""
        items = []
        for choice in self.choices:
            bars = "".join(
                f'<div class="says"><span>{escape(who)}</span>{Share(p).html()}</div>'
                for who, p in choice.shares.items()
            )
            items.append(f'<li><div class="says-all">{bars}</div>{choice.block.html()}</li>\n')
        rest = f'<p class="rest">{escape(self.rest)}</p>' if self.rest else ""
        seen, kind = self.block.html() if self.block else "", ' class="tiles"' if self.tiles else ""
        return (
            f'<div class="posterior"><h3 dir="auto">{escape(self.title)}</h3>{seen}'
            f"<ol{kind}>{''.join(items)}</ol>{rest}</div>"
        )


@dataclass(frozen=True)
class Certificate:
    """A figure that says how far a run can be trusted, in words.

    Attributes:
        name: of the figure.
        value: with its unit.
        meaning: what it measures, and which values are good.
        blind: what it cannot see, its own failure above all.
    """

    name: str
    value: str
    meaning: str
    blind: str

    def html(self) -> str:
        """A card."""
        return (
            f'<div class="card"><h3>{escape(self.name)}</h3><p class="value">{escape(self.value)}'
            f"</p><p>{escape(self.meaning)}</p><p><b>What it cannot see.</b> {escape(self.blind)}"
            "</p></div>"
        )


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown when their title is asked for."""

    title: str
    blocks: Sequence[Block]

    def html(self) -> str:
        """A `details` element."""
        return f"<details><summary>{escape(self.title)}</summary>{_html(self.blocks)}</details>"


@dataclass(frozen=True)
class Lines:
    """Text whose lines stay as they are, such as a settings file."""

    text: str

    def html(self) -> str:
        """A `pre` element in a box."""
        return f'<pre class="box" dir="auto">{escape(self.text)}</pre>'


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        blocks: what is in it.
    """

    title: str
    blocks: Sequence[Block]


def render(title: str, sections: Sequence[Section], facts: Sequence[str] = ()) -> str:
    """The page as one HTML document.

    Args:
        title: of the page.
        sections: its parts, in order; those without a block are left out.
        facts: lines under the title.
    """
    sections = [section for section in sections if section.blocks]
    places = [f"section-{number}" for number in range(1, len(sections) + 1)]
    links = "".join(
        f'<a href="#{place}">{escape(section.title)}</a>'
        for place, section in zip(places, sections, strict=True)
    )
    body = "\n".join(
        f'<section id="{place}"><h2>{escape(section.title)}</h2>\n{_html(section.blocks)}</section>'
        for place, section in zip(places, sections, strict=True)
    )
    lines = "".join(f"<p>{escape(fact)}</p>" for fact in facts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>{lines}</header>\n<nav>{links}</nav>\n"
        f"<main>{body}</main>\n</body>\n</html>\n"
    )


def _html(blocks: Sequence[Block]) -> str:
    return "\n".join(block.html() for block in blocks)


def percent(p: float) -> str:
    """A probability as people read it, the number and its sign kept together."""
    if p != p:
        return "unknown"
    if 0 < p < 0.001:
        return "<0.1\u00a0%"
    return f"{100 * p:.1f}\u00a0%" if p < 0.1 else f"{100 * p:.0f}\u00a0%"


def _cell(value: Any) -> str:
    if hasattr(value, "html"):
        return f"<td>{value.html()}</td>"
    if isinstance(value, float):
        return f'<td class="number">{value:.4g}</td>'
    kind = ' class="number"' if isinstance(value, int) else ' dir="auto"'
    return f"<td{kind}>{escape(value)}</td>"


_STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --page: #f6f7f9; --card: #fff; --line: #d8dee4;
  --bar: #0072b2; --remark: #fff3d6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #9aa4af; --page: #14171b; --card: #1c2025; --line: #353b43;
    --bar: #56b4e9; --remark: #3a3118; }
  .drawing .box > * { filter: invert(0.89) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.25rem; margin: 0 0 0.75rem; }
h3 { font-size: 1rem; margin: 0 0 0.5rem; }
p { margin: 0 0 0.75rem; }
header p { color: var(--soft); margin: 0 0 0.2rem; }
nav { display: flex; flex-wrap: wrap; gap: 0.4rem 1rem; margin: 1rem 0; }
a { color: var(--bar); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 1rem; margin-bottom: 1rem; }
.box { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; margin-bottom: 0.75rem; font-size: 0.92rem; }
caption { text-align: left; color: var(--soft); padding-bottom: 0.3rem; }
th, td { text-align: start; vertical-align: top; padding: 0.3rem 0.9rem 0.3rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; max-width: 34rem; }
td { overflow-wrap: break-word; }
.number { font-variant-numeric: tabular-nums; text-align: end; white-space: nowrap; }
.share { display: inline-flex; align-items: center; gap: 0.4rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.part { display: inline-block; margin-right: 0.6rem; }
small { color: var(--soft); }
.bar { display: inline-block; width: 5rem; height: 0.6rem; border-radius: 3px;
  background: var(--line); overflow: hidden; }
.bar > span { display: block; height: 100%; background: var(--bar); }
figure { margin: 0 0 1rem; }
figure img, figure svg { display: block; max-width: 100%; height: auto; border-radius: 4px; }
.wide img, .wide svg { max-width: none; }
figcaption, .rest { color: var(--soft); font-size: 0.92rem; margin-top: 0.3rem; }
.row { display: grid; gap: 1rem; margin-bottom: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); }
.row > * { min-width: 0; }
.posterior { border-top: 1px solid var(--line); padding-top: 0.75rem; margin-bottom: 1rem; }
.posterior ol { list-style: none; margin: 0; padding: 0; }
.posterior li { display: grid; grid-template-columns: 16rem minmax(0, 1fr); gap: 0.5rem 1rem;
  align-items: center; margin-bottom: 0.5rem; }
.posterior li figure { margin: 0; }
.posterior ol.tiles { display: grid; gap: 0.5rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.posterior .tiles li { display: flex; flex-direction: column-reverse; align-items: flex-start; }
.says { display: flex; justify-content: space-between; gap: 0.5rem; font-size: 0.92rem; }
.says .share { width: 8.6rem; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 0.8rem; font-size: 0.95rem; }
.card p:last-child { margin: 0; color: var(--soft); }
.value { font-size: 1.3rem; font-weight: 600; margin: 0 0 0.4rem; }
.remark { background: var(--remark); border-radius: 6px; padding: 0.6rem 0.8rem; }
details { margin-bottom: 0.75rem; }
summary { cursor: pointer; margin-bottom: 0.5rem; }
pre { font-size: 0.85rem; line-height: 1.4; margin: 0; }
.tiles .says-all { width: 100%; }
.tiles .says { justify-content: flex-start; flex-wrap: wrap; }
.tiles .says > span:first-child { min-width: 4rem; }
.tiles .says .share { width: auto; }
.tiles .bar { width: 2.5rem; }
@media (max-width: 40rem) {
  body { padding: 0.6rem; }
  section { padding: 0.75rem; }
  td .bar { width: 2.5rem; }
  .posterior li { grid-template-columns: minmax(0, 1fr); }
  .says { justify-content: flex-start; }
  ol:not(.tiles) .says > span:first-child { min-width: 7.5rem; }
}
"""
