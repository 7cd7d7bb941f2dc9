"""Draw the replay of an answer, in the middle of it, into docs/img/replay.png: a browser's picture of the page.

`python docs/replay.py` decodes anew, and needs Chromium. The picture on the pages is such a run in float32.
"""

import subprocess
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

import click

from denoising import QUESTION
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.traces import Recorder
from dllm_plugins.traces import Trace
from dllm_plugins.traces import page

PLACE = Path(__file__).parent / "img" / "replay.png"
#: A threshold below the cautious default, so that several tokens a pass are committed, also behind gaps.
CONFIG = SamplingConfig(mode="diffusion", threshold=0.5, max_new_tokens=64, logprobs=0)
#: The pass that is shown, and the window in CSS pixels.
PASS, SIZE = 25, (900, 590)


def recorded(model: Model, question: str, config: SamplingConfig) -> Trace:
    """Every pass of an answer."""
    chat, recorder = [{"role": "user", "content": question}], Recorder(model.tokenizer)
    for event in model.engine().stream(Request(model.encode_chat(chat), config)):
        recorder.take(event)
    return recorder.trace(chat, model.name)


def draw(trace: Trace, number: int, out: Path) -> None:
    """A picture of the page at a pass.

    :raises ClickException: if there is no browser.
    """
    browser = which("chromium") or which("chromium-browser") or which("google-chrome")
    if browser is None:
        raise click.ClickException("there is no chromium on the PATH; install it")
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Path(folder) / "replay.html"
        place.write_text(page(trace), encoding="utf-8")
        size = ",".join(map(str, SIZE))
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [
            f"--user-data-dir={folder}/profile",
            f"--window-size={size}",
            f"--screenshot={out.resolve()}",
            f"{place.as_uri()}#{number}",
        ]
        subprocess.run([browser, *options], check=True, capture_output=True)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=PLACE, show_default="docs/img/replay.png")
def main(out: Path) -> None:
    """Decode an answer and draw it."""
    draw(recorded(load_model("dllm", dtype="float32"), QUESTION, CONFIG), PASS, out)


if __name__ == "__main__":
    main()
