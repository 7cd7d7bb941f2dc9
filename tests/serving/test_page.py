"""The page at `/` in a real browser: an answer that is denoised in place, stopping, errors, keys, phones, shades."""

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.serving.background import Background
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings
from dllm_plugins.sharing import SharedModel

from ..traces.browser import COLOURS
from ..traces.browser import Browser
from ..traces.browser import found
from ..traces.browser import running

PROGRAM = found()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="NO BROWSER: the chat page is not tested; install chromium"),
]
DIFFUSION = {"mode": "diffusion", "steps": "8", "block": "16", "length": "32"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests here."""
    assert PROGRAM is not None
    with running(PROGRAM, tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture(scope="module")
def server(roomy: Loading, held_roomy: SharedModel, thinker: Loading, held_thinker: SharedModel) -> Iterator[str]:
    """The address of the page."""
    with Background(ServerSettings(models={"tiny": roomy, "thinker": thinker})) as made:
        yield made.address.removesuffix("v1")


@pytest.fixture
def shown(browser: Browser, server: str) -> Browser:
    """The page, opened, and the models it has been told of."""
    browser.resize(900, 800)
    browser.visit(server)
    browser.wait("document.getElementById('model').value === 'tiny'")
    return browser


@pytest.fixture(scope="module")
def alone(held_roomy: SharedModel) -> Callable[..., Finish]:
    """What the engine alone answers to a chat."""
    model = held_roomy.model

    def answer(chat: list[dict[str, str]], **options: Any) -> Finish:
        return model.engine().generate([Request(model.encode_chat(chat), SamplingConfig(**options))])[0]

    return answer


def choose(browser: Browser, **values: str) -> None:
    """Set options by the names of their elements."""
    for name, value in values.items():
        browser.evaluate(f"document.getElementById({name!r}).value = {value!r}")


def ask(browser: Browser, question: str) -> None:
    """Type a question and press Enter."""
    browser.evaluate(f"document.getElementById('question').value = {question!r}")
    browser.evaluate("document.getElementById('question').focus()")
    browser.press("Enter")


def texts(browser: Browser, kind: str) -> list[str]:
    """What stands in the turns of a kind, without figures."""
    script = f"[...document.querySelectorAll('.turn.{kind}')].map(e => [...e.childNodes].filter("
    found: list[str] = browser.evaluate(f"{script}n => n.className !== 'figures').map(n => n.textContent).join(''))")
    return found


def done(browser: Browser) -> None:
    """Wait for the end of an answer."""
    browser.wait("!document.getElementById('send').hidden")


def test_an_answer_appears_denoised_in_place(shown: Browser, alone: Callable[..., Finish]) -> None:
    """Drafts by confidence, commits, figures; and the next question goes on from it."""
    shown.evaluate(
        """window.seen = new Set(); new MutationObserver(() => {
          for (const cell of document.querySelectorAll('.token')) {
            seen.add(cell.className.split(' ')[1] + (cell.style.getPropertyValue('--shade') ? '+' : ''));
          }
        }).observe(document.getElementById('log'), { childList: true, subtree: true })"""
    )
    choose(shown, **DIFFUSION)
    ask(shown, "why?")
    done(shown)
    chat = [{"role": "user", "content": "why?"}]
    options = {"mode": "diffusion", "steps": 8, "block_length": 16, "max_new_tokens": 32}
    expected = alone(chat, **options)
    assert texts(shown, "user") == ["why?"]
    assert texts(shown, "assistant") == [expected.text]
    figures = shown.evaluate("document.querySelector('.figures').textContent")
    passes, tokens = expected.usage.total_passes, len(expected.tokens)
    assert figures.startswith(f"{tokens} tokens · {passes} passes · {tokens / passes:.2f} tokens a pass")
    assert "mode diffusion" in figures
    seen = set(shown.evaluate("[...window.seen]"))
    assert "open" in seen
    assert seen & {"guess+", "committed+"}
    assert shown.evaluate("document.querySelectorAll('.token').length") == 0
    ask(shown, "how?")
    done(shown)
    chat += [{"role": "assistant", "content": expected.text}, {"role": "user", "content": "how?"}]
    assert texts(shown, "assistant")[1] == alone(chat, **options).text
    shown.evaluate("document.getElementById('fresh').click()")
    assert texts(shown, "assistant") == []


def test_thoughts_stand_apart(shown: Browser, held_thinker: SharedModel) -> None:
    """And are no part of the answer."""
    choose(shown, model="thinker", mode="ar", length="12")
    ask(shown, "why?")
    done(shown)
    model = held_thinker.model
    request = model.chat_request([{"role": "user", "content": "why?"}], SamplingConfig(max_new_tokens=12, mode="ar"))
    [expected] = model.engine().generate([request])
    assert expected.reasoning
    assert shown.evaluate("document.querySelector('.thought').textContent") == expected.reasoning
    assert shown.evaluate("document.querySelector('.thought').nextSibling.textContent") == expected.text == ""


@pytest.mark.parametrize("how", ["button", "key"])
def test_stopping_frees_the_row(shown: Browser, server: str, how: str) -> None:
    """By the button and by Escape; what was written stays, and the next question is answered."""

    def figure(name: str) -> float:
        lines = httpx.get(f"{server}metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f'{name}{{model="tiny"}}'))

    left = figure("dllm_left_total")
    choose(shown, mode="ar", length="3000")
    ask(shown, "why?")
    shown.wait("(document.querySelector('.assistant') || {}).textContent")
    assert figure("dllm_working") == 1
    if how == "key":
        shown.press("Escape")
    else:
        shown.evaluate("document.getElementById('stop').click()")
    done(shown)
    while figure("dllm_working"):
        pass
    assert figure("dllm_left_total") == left + 1
    assert shown.evaluate("document.querySelector('.figures').textContent").endswith("stopped")
    choose(shown, length="4")
    ask(shown, "how?")
    done(shown)
    assert len(texts(shown, "assistant")) == 2


def test_errors_are_shown(shown: Browser) -> None:
    """As the server says them, to those who do not see, too; the question can be asked again."""
    choose(shown, mode="ar", steps="3", length="4")
    ask(shown, "<b>why?</b>")
    done(shown)
    [error] = texts(shown, "error")
    assert "dllm.steps" in error
    assert shown.evaluate("document.querySelector('.error').getAttribute('role')") == "alert"
    assert texts(shown, "user") == ["<b>why?</b>"]
    assert shown.evaluate("document.querySelectorAll('#log b').length") == 0
    choose(shown, steps="")
    ask(shown, "how?")
    done(shown)
    assert len(texts(shown, "assistant")) == 1


def test_a_key_is_asked_for(browser: Browser, roomy: Loading) -> None:
    """Where the server wants one."""
    with Background(ServerSettings(models={"tiny": roomy}, keys=frozenset({"k"}))) as server:
        browser.visit(server.address.removesuffix("v1"))
        browser.wait("document.activeElement.id === 'key'")
        assert "key" in texts(browser, "error")[0]
        choose(browser, key="k", length="4")
        browser.evaluate("document.getElementById('key').dispatchEvent(new Event('change'))")
        browser.wait("document.getElementById('model').value === 'tiny'")
        ask(browser, "why?")
        done(browser)
        assert len(texts(browser, "assistant")) == 1


def test_it_asks_its_own_server_only(shown: Browser, server: str) -> None:
    """And complains of nothing; its policy lets no other script run."""
    sent = [event["params"] for event in shown.events if event["method"] == "Network.requestWillBeSent"]
    asked = [one["request"]["url"] for one in sent]
    assert {url for url in asked if not url.startswith((server, "about:", "data:"))} == set()
    bad = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    said = [event["params"] for event in shown.events if event["method"] in bad]
    # Chromium would like a field for a key to stand in a form with a name.
    assert [one for one in said if one.get("entry", {}).get("source") != "recommendation"] == []
    shown.evaluate("const s = document.createElement('script'); s.text = 'window.ran = 1'; document.body.append(s)")
    assert shown.evaluate("window.ran") is None
    assert shown.evaluate(f"fetch('{server.replace('127.0.0.1', 'localhost')}health').then(() => 1, () => 0)") == 0


def test_on_a_phone_and_by_keys(shown: Browser) -> None:
    """Nothing sticks out, fingers find the buttons, letters are large enough, and Tab comes to everything."""
    shown.resize(360, 740, mobile=True)
    shown.evaluate("document.getElementById('more').open = true")
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360
    sizes = shown.evaluate(
        "[...document.querySelectorAll('button, select, input, textarea')].filter(e => !e.hidden).map("
        "e => Math.min(e.offsetHeight, e.offsetWidth))"
    )
    assert min(sizes) >= 44
    fonts = shown.evaluate(
        "[...document.querySelectorAll('select, input, textarea')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(fonts) >= 16
    shown.evaluate("document.getElementById('model').focus()")
    reached = [shown.evaluate("document.activeElement.id")]
    for _ in range(13):
        shown.press("Tab")
        reached.append(shown.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"fresh", "log", "SUMMARY", "mode", "length", "key", "question", "send"} <= set(reached)
    named = shown.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "combobox", "textbox", "spinbutton")
    names = [node["name"]["value"] for node in named if not node.get("ignored") and node["role"]["value"] in roles]
    assert all(names)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_readable(shown: Browser, scheme: str) -> None:
    """Text keeps a contrast of 4.5 to what is behind it, on every shade of confidence."""
    shown.prefer(scheme)
    measured = shown.evaluate(
        "(() => {"
        + COLOURS
        + """
          const shades = [0, 25, 50, 75, 100].map((p) => `color-mix(in oklab, var(--high) ${p}%, var(--low))`);
          const grounds = ['var(--paper)', 'var(--panel)'];
          return {
            ink: [...grounds, 'var(--mine)', ...shades].map((colour) => contrast('var(--ink)', colour)),
            faint: grounds.map((colour) => contrast('var(--faint)', colour)),
            bad: [contrast('var(--bad)', 'var(--paper)')],
            paper: luminance(value('var(--paper)')),
          };
        })()"""
    )
    assert min(measured["ink"] + measured["faint"] + measured["bad"]) >= 4.5
    assert (measured["paper"] > 0.5) == (scheme == "light")
    shown.prefer("light")
