"""The page as a file: small, whole by itself, and data that can be nothing but data."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

from dllm_plugins.traces import Cell
from dllm_plugins.traces import Frame
from dllm_plugins.traces import Trace
from dllm_plugins.traces import page

from .traced import MARKUP
from .traced import NASTY
from .traced import TRACE


class _Elements(HTMLParser):
    """Every element with its attributes, and the texts of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in self.texts:
            self.texts[self._inside][-1] += data


def test_texts_are_data_and_nothing_else() -> None:
    """Whatever they spell, the elements are those of any page, and the data say what the trace said."""
    found, plain = _Elements(page(TRACE)), _Elements(page(Trace((), "", ())))
    assert found.found == plain.found
    data = json.loads(found.texts["script"][0])
    assert data["facts"] == [["Model", "a <model>"], ["System", MARKUP], ["Question", NASTY]]
    assert data["texts"] == ["a\n", MARKUP, "", "b", NASTY, "</s>"]
    # Place, text, state, confidence in percent, the pass, whether special: what differs from the frame before.
    assert data["frames"] == [
        [4, [[0, 0, 3, 50, 1, 0], [1, 1, 1, 25, 0, 0], [2, 2, 0, None, 0, 0], [3, 2, 0, None, 0, 0]]],
        [4, [[1, 3, 2, 75, 2, 0], [3, 4, 2, 100, 2, 0]]],
        [3, [[1, 1, 3, 0, 3, 0], [2, 5, 3, None, 3, 1]]],
    ]


def test_nothing_is_loaded_and_only_its_own_script_runs() -> None:
    """By its policy, whose hashes are those of what stands there; no address is in the page."""
    text = page(TRACE)
    found = _Elements(text)
    policy = next(attributes["content"] for tag, attributes in found.found if attributes.get("http-equiv") is not None)
    hashes = {
        name: f"'sha256-{b64encode(sha256(found.texts[name][-1].encode()).digest()).decode()}'"
        for name in ("script", "style")
    }
    expected = f"default-src 'none'; style-src {hashes['style']}; script-src {hashes['script']}; base-uri 'none'"
    assert policy == expected
    assert not [attributes for _, attributes in found.found if {"src", "href", "style", "onclick"} & set(attributes)]
    assert re.findall(r"https?://|//[a-z]+\.", page(Trace((), "", ()))) == []


def test_it_is_small() -> None:
    """An empty one, and one of 128 tokens that settle one by one while all others are guessed anew."""
    assert len(page(Trace((), "", ()))) < 16_000
    frames = tuple(
        Frame(
            number + 1,
            tuple(
                Cell(f" word{place % 40}", "final", 0.9, place + 1)
                if place <= number
                else Cell(f" word{(place + number) % 40}", "guess", (place * number % 97) / 97)
                for place in range(128)
            ),
        )
        for number in range(128)
    )
    assert len(page(Trace((), "", frames))) < 250_000
