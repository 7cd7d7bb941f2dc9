"""The page in a real browser: what it shows, plays and does with keys, and that it asks nobody for anything."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins.traces import page

from .browser import COLOURS
from .browser import Browser
from .browser import found
from .browser import running
from .traced import FILLED
from .traced import MARKUP
from .traced import NASTY
from .traced import TRACE

PROGRAM = found()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="NO BROWSER: the replay page is not tested; install chromium"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests here."""
    assert PROGRAM is not None
    with running(PROGRAM, tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture
def shown(browser: Browser, tmp_path: Path) -> Browser:
    """The page, opened."""
    place = tmp_path / "replay.html"
    place.write_text(page(TRACE), encoding="utf-8")
    browser.resize(900, 800)
    browser.open(place)
    return browser


def cells(browser: Browser) -> list[tuple[str, str]]:
    """Text and classes of every token that is shown."""
    found = browser.evaluate("[...document.querySelectorAll('#canvas > span')].map(e => [e.textContent, e.className])")
    return [(text, classes) for text, classes in found]


def status(browser: Browser) -> str:
    text: str = browser.evaluate("document.getElementById('status').textContent")
    return text


def style(browser: Browser, selector: str, name: str) -> str:
    value: str = browser.evaluate(f"getComputedStyle(document.querySelector({selector!r})).{name}")
    return value


def test_arrows_home_and_end_go_through_the_passes(shown: Browser) -> None:
    """Each pass shows what stood there; wherever the focus is, and not beyond the ends."""
    assert status(shown) == "Before pass 1 of 3"
    assert cells(shown) == []
    shown.press("ArrowRight")
    first = [("a↵\n", "token final new"), (MARKUP, "token guess"), ("·", "token open"), ("·", "token open")]
    assert cells(shown) == first
    assert status(shown) == "Pass 1 of 3 · 1 settled by it · 1 guessed · 2 open"
    shown.press("End")
    assert cells(shown) == [
        ("a↵\n", "token final"),
        (MARKUP, "token final new"),
        ("</s>", "token final new special"),
    ]
    shown.press("ArrowRight")
    assert status(shown).startswith("Pass 3 of 3")
    shown.evaluate("document.getElementById('pass').focus()")
    shown.press("ArrowLeft")
    assert cells(shown)[3] == (NASTY, "token committed new")
    assert shown.evaluate("document.getElementById('pass').value") == "2"
    shown.press("Home")
    shown.press("ArrowLeft")
    assert status(shown) == "Before pass 1 of 3"


def test_space_and_the_button_play_and_pause(shown: Browser) -> None:
    """To the end, where playing begins anew."""
    name = "document.getElementById('play').textContent"
    shown.press(" ")
    assert shown.evaluate(name) == "Pause"
    shown.press(" ")
    assert shown.evaluate(name) == "Play"
    shown.evaluate("document.getElementById('speed').value = '4'")
    shown.evaluate("document.getElementById('play').focus()")
    shown.press(" ")
    shown.wait("document.getElementById('pass').value === '3'")
    assert shown.evaluate(name) == "Play"
    shown.press(" ")
    assert shown.evaluate(name) == "Pause"
    shown.press("ArrowRight")
    assert shown.evaluate(name) == "Play"


def test_the_slider_and_the_buttons(shown: Browser) -> None:
    """As a pointer uses them."""
    shown.evaluate("const s = document.getElementById('pass'); s.value = 2; s.dispatchEvent(new Event('input'))")
    assert status(shown).startswith("Pass 2 of 3")
    for name, now in (("on", 3), ("back", 2), ("last", 3)):
        shown.evaluate(f"document.getElementById('{name}').click()")
        assert status(shown).startswith(f"Pass {now} of 3"), name
    shown.evaluate("document.getElementById('first').click()")
    assert status(shown) == "Before pass 1 of 3"


def test_colours_by_confidence_and_by_pass(shown: Browser) -> None:
    """A surer token and a later one look otherwise; open ones and unknown ones have no colour."""
    shown.press("ArrowRight")
    shown.press("ArrowRight")
    clear, of = "rgba(0, 0, 0, 0)", "backgroundColor"
    sure = [style(shown, f"#canvas > :nth-child({place})", of) for place in (1, 2, 3, 4)]
    assert sure[2] == clear
    assert len({*sure}) == 4
    choose = "const c = document.getElementById('colour'); c.value = 'pass'; c.dispatchEvent(new Event('change'))"
    shown.evaluate(choose)
    passes = [style(shown, f"#canvas > :nth-child({place})", of) for place in (1, 2, 3, 4)]
    assert passes[2] == clear
    assert passes[1] == passes[3]
    assert len({*passes}) == 3
    assert not {*passes[:2]} & {*sure}
    assert shown.evaluate("document.getElementById('high').textContent") == "pass 3"


def test_texts_are_texts(shown: Browser) -> None:
    """What spells markup is shown letter by letter, and does nothing."""
    shown.press("End")
    shown.press("ArrowLeft")
    facts = shown.evaluate("[...document.querySelectorAll('dd')].map(e => e.textContent)")
    assert facts == ["a <model>", MARKUP, NASTY]
    assert shown.evaluate("document.title") == "Replay of an answer"
    assert shown.evaluate("document.querySelectorAll('img, b, iframe, main script').length") == 0
    assert shown.evaluate("document.scripts.length") == 2


def test_it_asks_nobody_and_complains_of_nothing(shown: Browser) -> None:
    """No request but for the file, no error, and scripts and addresses that come later are refused by its policy."""
    shown.press("End")
    asked = [event["params"]["request"] for event in shown.events if event["method"] == "Network.requestWillBeSent"]
    assert {request["url"].partition(":")[0] for request in asked} <= {"file", "about"}
    bad = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    assert [event for event in shown.events if event["method"] in bad] == []
    shown.evaluate("const s = document.createElement('script'); s.text = 'window.ran = 1'; document.body.append(s)")
    assert shown.evaluate("window.ran") is None


def test_tokens_are_told_about_by_pointer_and_keys(shown: Browser) -> None:
    """The answer takes the focus; up and down go from token to token."""
    detail = "document.getElementById('detail').textContent"
    shown.press("ArrowRight")
    shown.evaluate("document.querySelector('#canvas > :nth-child(2)').click()")
    assert shown.evaluate(detail).startswith('Token 2 "<b>&amp;</b>')
    assert shown.evaluate(detail).endswith(": guessed, confidence 25 %")
    shown.evaluate("document.getElementById('canvas').focus()")
    shown.press("ArrowUp")
    assert shown.evaluate(detail) == 'Token 1 "a\\n": final, settled by pass 1, confidence 50 %'
    for _ in range(5):
        shown.press("ArrowDown")
    assert shown.evaluate(detail) == "Token 4: open"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_readable(shown: Browser, scheme: str) -> None:
    """Text keeps a contrast of 4.5 to what is behind it, on paper and on every shade of the scales."""
    shown.prefer(scheme)
    measured = shown.evaluate(
        "(() => {"
        + COLOURS
        + """
          const mixed = (a, b, p) => `color-mix(in oklab, var(--${b}) ${p}%, var(--${a}))`;
          const shades = [0, 25, 50, 75, 100].flatMap((p) => [mixed('low', 'high', p), mixed('first', 'late', p)]);
          return {
            ink: ['var(--paper)', 'var(--panel)', ...shades].map((colour) => contrast('var(--ink)', colour)),
            faint: ['var(--paper)', 'var(--panel)'].map((colour) => contrast('var(--faint)', colour)),
            paper: luminance(value('var(--paper)')),
          };
        })()"""
    )
    assert min(measured["ink"] + measured["faint"]) >= 4.5
    assert (measured["paper"] > 0.5) == (scheme == "light")
    shown.prefer("light")


def test_on_a_phone(shown: Browser) -> None:
    """Nothing sticks out, letters keep their size, and fingers find the buttons."""
    shown.resize(360, 740, mobile=True)
    shown.press("End")
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360
    sizes = shown.evaluate("[...document.querySelectorAll('button')].map(e => Math.min(e.offsetHeight, e.offsetWidth))")
    assert min(sizes) >= 44
    assert style(shown, "#canvas", "fontSize") == "16px"


def test_names_for_those_who_do_not_see(shown: Browser) -> None:
    """Every control has a name, and Tab comes to each of them."""
    nodes: list[dict[str, Any]] = shown.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "slider", "combobox", "group", "heading")
    named = {
        (node["role"]["value"], node["name"]["value"])
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in roles
    }
    assert named == {
        ("heading", "How this answer was denoised"),
        ("group", "The answer after this pass"),
        ("slider", "Pass"),
        ("combobox", "Speed"),
        ("combobox", "Colour"),
        *(("button", name) for name in ("To the beginning", "A pass back", "Play", "A pass on", "To the end")),
    }
    reached = []
    for _ in range(9):
        shown.press("Tab")
        reached.append(shown.evaluate("document.activeElement.id"))
        assert style(shown, f"#{reached[-1]}", "outlineStyle") == "solid", reached[-1]
    assert reached == ["canvas", "pass", "first", "back", "play", "on", "last", "speed", "colour"]


def test_a_pass_by_its_address(shown: Browser, tmp_path: Path) -> None:
    """The part behind # names it."""
    shown.open(tmp_path / "replay.html", "#2")
    assert status(shown).startswith("Pass 2 of 3")


def test_an_answer_without_passes(browser: Browser, tmp_path: Path) -> None:
    """There is nothing to play, and nothing breaks."""
    from dllm_plugins.traces import Trace

    place = tmp_path / "empty.html"
    place.write_text(page(Trace((), "dllm", ())), encoding="utf-8")
    browser.open(place)
    browser.press(" ")
    browser.press("ArrowRight")
    browser.press("ArrowDown")
    assert status(browser) == "Before pass 1 of 0"
    assert [event for event in browser.events if event["method"] == "Runtime.exceptionThrown"] == []


def test_a_template(browser: Browser, tmp_path: Path) -> None:
    """Its texts stand from the beginning and in every pass; tokens are counted within their gap."""
    place = tmp_path / "filled.html"
    place.write_text(page(FILLED), encoding="utf-8")
    browser.open(place)
    detail = "document.getElementById('detail').textContent"
    shown = []
    for _ in range(3):
        shown.append(cells(browser))
        browser.press("ArrowRight")
    assert shown[0] == [("x ", "token fixed"), ("·", "token open"), (" y", "token fixed"), *[("·", "token open")] * 2]
    assert shown[1][0::2] == [("x ", "token fixed"), (" y", "token fixed"), ("c", "token committed new")]
    assert shown[2] == [
        *(("x ", "token fixed"), ("a", "token final"), (" y", "token fixed"), ("b", "token final new")),
    ]
    assert int(style(browser, ".fixed", "fontWeight")) >= 600
    assert browser.evaluate("document.getElementById('fixed').hidden") is False
    browser.evaluate("document.getElementById('canvas').focus()")
    told = []
    for _ in range(4):
        browser.press("ArrowDown")
        told.append(browser.evaluate(detail))
    assert told == [
        'Text "x ": fixed text',
        'Gap 1, token 1 "a": final, settled by pass 1',
        'Text " y": fixed text',
        'Gap 2, token 1 "b": final, settled by pass 2',
    ]
    assert status(browser) == "Pass 2 of 2 · 1 settled by it · 0 guessed · 0 open"
