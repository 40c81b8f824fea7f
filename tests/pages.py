"""A strict reader of the pages that reports are."""

from html.parser import HTMLParser

_EMPTY = {"meta", "img", "br"}
#: attributes that make a browser fetch something
_LOADED = {"src", "href", "xlink:href", "data", "srcset", "poster", "action"}


class Page(HTMLParser):
    """Reads a page; fails where an element is not closed, or something outside is referred to.

    Attributes:
        text: all texts, unescaped, a space between them.
        tags: the names of all elements.
        ids, links: targets within the page, and what refers to them.
    """

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self._open: list[str] = []
        self._texts: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, f"never closed: {self._open}"
        assert "script" not in self.tags and "url(" not in source and "@import" not in source
        assert len(set(self.ids)) == len(self.ids) and set(self.links) <= set(self.ids)
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in _EMPTY:
            self._open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name == "id":
                self.ids.append(value)
            elif name in _LOADED and value.startswith("#"):
                self.links.append(value[1:])
            elif name in _LOADED:
                assert value.startswith("data:image/png;base64,"), value[:60]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self._open and self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self._texts.append(data)
