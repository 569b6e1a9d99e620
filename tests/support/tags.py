"""What a piece of HTML consists of, as a browser would read it."""

from __future__ import annotations

import html.parser


class Tags(html.parser.HTMLParser):
    """The names of the tags of a text, and what stands between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data
