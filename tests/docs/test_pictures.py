"""The picture of text being denoised: what it shows, and that the one on the pages is whole."""

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import replay
from denoising import OPEN
from denoising import PLACE
from denoising import QUESTION
from denoising import Frame
from denoising import frames
from denoising import picture
from dllm_plugins import Model
from dllm_plugins import SamplingConfig

ROOT = Path(__file__).parents[2]


def spans(svg: str, name: str) -> list[str]:
    """The texts of a class, in order."""
    found = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}tspan")
    return [span.text or "" for span in found if span.get("class") == name]


def test_every_pass_is_a_line() -> None:
    passes = [Frame("", "a <b", f" c{OPEN}"), Frame("a <b", "\nc", "")]
    svg = picture("Why & how?", passes, "3 tokens in 2 passes")
    assert spans(svg, "new")[:2] == ["a <b", "↵c"]
    assert spans(svg, "final")[:1] == ["a <b"]
    assert spans(svg, "guess")[0] == f" c{OPEN}"
    assert "Why &amp; how?" in svg


def test_what_is_final_stays(tiny: Model) -> None:
    """Line by line the final text grows by what the pass committed."""
    passes, usage = frames(tiny, "hello", SamplingConfig(mode="diffusion", max_new_tokens=12))
    for before, after in pairwise(passes):
        assert after.final == before.final + before.new
    assert usage.endswith("passes")
    assert passes[0].guess


def test_the_picture_on_the_page() -> None:
    """It is there, asks the question of the pages, and ends with more final text than it began with."""
    assert "img/denoising.svg" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    svg = PLACE.read_text(encoding="utf-8")
    assert QUESTION in svg
    final = spans(svg, "final")[:-1]
    assert final[-1].startswith(final[0])
    assert len(final) > 5


def test_the_replay_on_the_first_page() -> None:
    """The README opens with it: the very page that the script records, at a pass that leaves something to guess."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)[0] == replay.PLACE.relative_to(ROOT).as_posix()
    head = replay.PLACE.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(head[16:20]), int.from_bytes(head[20:24])) == replay.SIZE


def test_what_is_recorded_for_it(tiny: Model) -> None:
    """Every pass of an answer, with confidences."""
    trace = replay.recorded(tiny, "hello", SamplingConfig(mode="diffusion", max_new_tokens=12, logprobs=0))
    assert len(trace.frames[-1].cells) == 12
    assert trace.usage is not None
    assert len(trace.frames) == trace.usage.total_passes
    assert all(cell.confidence is not None for cell in trace.frames[-1].cells)
