"""Draw how the default model denoises an answer, a line a pass, into docs/img/denoising.svg.

`python docs/denoising.py` decodes anew and draws what came. The picture on the pages is such a run in float32.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import click

from dllm_plugins import Commit
from dllm_plugins import Draft
from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model

PLACE = Path(__file__).parent / "img" / "denoising.svg"
QUESTION = "Why is the sky blue?"
#: A threshold below the cautious default, so that several tokens a pass are committed.
CONFIG = SamplingConfig(mode="diffusion", threshold=0.6, max_new_tokens=20)
#: What a position says of which nothing is known yet.
OPEN = "·"
WIDE, HIGH, MARGIN = 8.45, 24, 16
STYLE = """
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre }
.pass { fill: #8a8f98 } .final { fill: #1f2328 } .new { fill: #1a7f37; font-weight: 700 } .guess { fill: #3b82d6 }
""".strip()


@dataclass(frozen=True, slots=True)
class Frame:
    """The answer behind one pass: final before it, final by it, and what it said of the rest, not committed."""

    final: str
    new: str
    guess: str


def frames(model: Model, question: str, config: SamplingConfig) -> tuple[list[Frame], str]:
    """Every pass of an answer, and its statistics in words."""
    tokens = model.encode_chat([{"role": "user", "content": question}])
    engine = model.engine()
    engine.admit(Request(tokens, config))
    found, final, usage = [], "", ""
    while engine.active:
        new, guess = "", ""
        for event in engine.step():
            if isinstance(event, Commit):
                new += event.text
            elif isinstance(event, Draft):
                guess = "".join(OPEN if token is None else model.tokenizer.decode([token]) for token in event.guesses)
            elif isinstance(event, Finish):
                usage = f"{event.usage.useful_tokens} tokens in {event.usage.total_passes} passes"
        found.append(Frame(final, new, guess))
        final += new
    return found, usage


def line(number: int, frame: Frame) -> str:
    """One pass as text in SVG."""
    parts = {"pass": f"{number:>4}  ", "final": frame.final, "new": frame.new, "guess": frame.guess}
    spans = "".join(f'<tspan class="{name}">{escape(shown(text))}</tspan>' for name, text in parts.items() if text)
    return f'<text x="{MARGIN}" y="{MARGIN + HIGH * (number + 1)}" xml:space="preserve">{spans}</text>'


def shown(text: str) -> str:
    """A line break would end the line."""
    return text.replace("\n", "↵")


def picture(question: str, passes: Iterable[Frame], usage: str) -> str:
    """An SVG: the question, a line a pass, and a legend."""
    rows = [line(number, frame) for number, frame in enumerate(passes, 1)]
    longest = max(len(frame.final + frame.new + frame.guess) for frame in passes)
    wide, high = round(2 * MARGIN + WIDE * (longest + 6)), 2 * MARGIN + HIGH * (len(rows) + 2)
    legend = (
        f'<text x="{MARGIN}" y="{high - MARGIN}" xml:space="preserve"><tspan class="pass">      {usage}: </tspan>'
        '<tspan class="final">final</tspan>  <tspan class="new">final by this pass</tspan>  '
        f'<tspan class="guess">guessed, still masked</tspan>  <tspan class="guess">{OPEN} nothing yet</tspan></text>'
    )
    head = (
        f'<text x="{MARGIN}" y="{MARGIN + HIGH // 2}" class="pass" xml:space="preserve">pass  {escape(question)}</text>'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}">',
            f"<title>{escape(question)} {usage}, a line a pass</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{wide}" height="{high}" rx="8" fill="#ffffff" stroke="#d0d7de"/>',
            head,
            *rows,
            legend,
            "</svg>\n",
        ]
    )


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=PLACE, show_default="docs/img/denoising.svg")
def main(out: Path) -> None:
    """Decode an answer and draw it."""
    passes, usage = frames(load_model("dllm", dtype="float32"), QUESTION, CONFIG)
    out.write_text(picture(QUESTION, passes, usage), encoding="utf-8")
    for number, frame in enumerate(passes, 1):
        click.echo(f"{number:>3} {shown(frame.final)}[{shown(frame.new)}]{shown(frame.guess)}")


if __name__ == "__main__":
    main()
