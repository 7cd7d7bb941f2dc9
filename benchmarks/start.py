"""How long things take to start, with ours and without, side by side: seconds of the processor, by interpreters of
their own, in turns.

    python benchmarks/start.py --rounds 9
"""

import os
import resource
import subprocess
import sys
from dataclasses import dataclass

import click

_LLM = "from llm.plugins import load_plugins; load_plugins(); import llm; llm.get_models()"
_ANSWER = """
from dllm_plugins import Request, SamplingConfig, load_model
model = load_model("dllm")
tokens = model.encode_chat([{"role": "user", "content": "Why is the sky blue?"}])
model.engine().generate([Request(tokens, SamplingConfig(max_new_tokens=1))])
"""


@dataclass(frozen=True, slots=True)
class Start:
    """What is timed, and what it is compared with.

    :param plugins: the plug-ins that llm loads in each, as in LLM_LOAD_PLUGINS.
    """

    name: str
    ours: str
    baseline: str
    plugins: tuple[str, str] = ("", "")


STARTS = (
    Start("llm's models, with the plug-in and without", _LLM, _LLM, ("dllm-plugins", "")),
    Start("import dllm_plugins, and nothing", "import dllm_plugins", ""),
    Start(
        "the engine and all plug-ins, and torch alone",
        "import dllm_plugins.engine; from dllm_plugins import plugins; plugins.modes(); plugins.presets()",
        "import torch",
    ),
    Start("the default model's first token, and torch and transformers", _ANSWER, "import torch, transformers"),
)


def seconds(code: str, plugins: str) -> float:
    """Of the processor, in one interpreter from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"LLM_LOAD_PLUGINS": plugins})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often each is started.")
def main(rounds: int) -> None:
    """Print the least of each, as what else runs only adds to it; the difference and the ratio."""
    click.echo(f"{'':60} {'ours':>8} {'baseline':>8} {'more':>8} {'ratio':>6}")
    for start in STARTS:
        pairs = [
            (seconds(start.ours, start.plugins[0]), seconds(start.baseline, start.plugins[1])) for _ in range(rounds)
        ]
        ours, baseline = (min(side) for side in zip(*pairs, strict=True))
        more = f"{1000 * (ours - baseline):.0f} ms"
        click.echo(f"{start.name:60} {ours:7.2f}s {baseline:7.2f}s {more:>8} {ours / baseline:6.2f}")


if __name__ == "__main__":
    main()
