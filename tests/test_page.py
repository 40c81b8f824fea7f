"""Blocks as HTML: whatever their texts are, the page holds them and nothing else."""

import pytest
from pages import Page

from gfnem.page import (
    Certificate,
    Choice,
    Fold,
    Lines,
    Parts,
    Picture,
    Posterior,
    Row,
    Section,
    Share,
    Table,
    Text,
    percent,
    render,
)

NASTY = [
    "<script>alert(1)</script>",
    "a \"quoted\" & 'single' </p></div></svg>",
    "--> ]]> {{x}} &lt; &#60;",
    "שלום مرحبا 🙂",
    "w" * 100,
]


def page(*blocks) -> Page:
    return Page(render("title", [Section("section", blocks)]))


@pytest.mark.parametrize("text", NASTY)
def test_every_text_of_every_block_is_shown_as_it_is(text):
    blocks = [
        Text(text),
        Text(text, remark=True),
        Table([text], [[text], [Share(0.5, text)]], text),
        Parts([(text, 0.2)]),
        Parts([], text),
        Picture(b"png", text),
        Row([Certificate(text, text, text, text)]),
        Posterior(text, [Choice({text: 0.3}, Lines(text))], text, Text(text)),
        Fold(text, [Lines(text)]),
    ]
    read = Page(render(text, [Section(text, blocks)], [text]))
    # title and heading, fact, link and heading of the section, and those above
    assert read.text.count(" ".join(text.split())) == 2 + 1 + 2 + 20
    assert "alert" not in read.tags


def test_what_no_document_may_hold_is_replaced():
    assert "a\ufffdb\ufffdc" in page(Text("a\x00b\ud800c")).text
    assert render("\ud800", []).encode("utf-8")


def test_a_page_without_javascript_for_phones_and_for_the_dark():
    source = render("title", [Section("first", [Text("x")]), Section("empty", [])])
    read = Page(source)
    assert 'name="viewport" content="width=device-width' in source
    assert "prefers-color-scheme: dark" in source and "empty" not in read.text
    assert read.ids == read.links == ["section-1"]


@pytest.mark.parametrize(
    ("p", "shown", "width"),
    [
        (0.0, "0.0 %", "0.0%"),
        (0.0004, "<0.1 %", "0.0%"),
        (0.034, "3.4 %", "3.4%"),
        (0.5, "50 %", "50.0%"),
        (1.0001, "100 %", "100.0%"),
        (float("nan"), "unknown", "0.0%"),
    ],
)
def test_probabilities_for_people(p, shown, width):
    assert percent(p).replace("\u00a0", " ") == shown
    assert f"width:{width}" in Share(p).html()


def test_numbers_and_blocks_in_a_table():
    read = page(Table(["a", "b", "c"], [[0.123456, 7, Share(0.25)]]))
    assert "0.1235 7 25\u00a0%" in read.text.replace("25 %", "25\u00a0%")
    assert read.tags.count("td") == 3


def test_pictures_are_in_the_page():
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><text>a</text></svg>'
    read = page(Picture(b"\x89PNG", "one"), Picture(svg, "two", drawing=False, wide=True))
    assert read.tags.count("img") == read.tags.count("svg") == 1
