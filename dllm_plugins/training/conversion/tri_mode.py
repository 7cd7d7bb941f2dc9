"""The other way: the base keeps its weights, and a low-rank denoiser that is trained for it stands beside them."""

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from dllm_plugins.default_model.base import base_place
from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.whole import alone
from dllm_plugins.files.whole import whole
from dllm_plugins.training.base import open_base
from dllm_plugins.training.conversion.start import place_of
from dllm_plugins.training.decode import DecodingFigures
from dllm_plugins.training.decode import decode_table
from dllm_plugins.training.texts import HELD_OUT_TEXT
from dllm_plugins.training.texts import text_of
from dllm_plugins.training.texts import write_held_out
from dllm_plugins.training.train import Recipe
from dllm_plugins.training.train import TrainingRun
from dllm_plugins.training.workers import workers

#: In the folder of the model; one level down, lest its tensors be taken for the base's.
DENOISER = Path("denoiser") / "denoiser.safetensors"
_NAMES = {"batch": "answers"}
_CARD = """\
# {name}, tri-mode

The weights of {name}, unchanged, and in `{denoiser}` a low-rank denoiser that drafts for it, trained by dllm-plugins
in {minutes:.0f} minutes of {steps} steps. In mode `speculative` the text is exactly that of the base, in fewer passes.
The licence is that of {name}.

{prompts} held-out prompts, greedy, at most {tokens} tokens:

| mode | tokens/pass | rows/token | answers equal to ar |
|---|---|---|---|
{table}

## How to use it

```
export DLLM_BASE={folder} DLLM_DENOISER={folder}/{denoiser}
llm -m dllm 'Why is the sky blue?'
```

```python
from langchain_dllm import ChatDLLM

chat = ChatDLLM(base="{folder}", denoiser="{folder}/{denoiser}")
print(chat.invoke("Why is the sky blue?").content)
```

`load_model` of dllm_plugins takes `base` and `denoiser`, too. The Auto classes of transformers load the folder as the
base that it is, and `dllm_transformers.export` makes one checkpoint of a Llama and its denoiser.
"""


def make_tri_mode(
    base: str | None,
    folder: Path,
    text: Sequence[Path],
    prompts: Sequence[str],
    tokens: int,
    *,
    dtype: str,
    compiled: bool = False,
    **recipe: Any,
) -> None:
    """Train, or go on with the run in the folder; then write `model/` and its card.

    :param base: see :func:`place_of`.
    :param text: folders that `corpus` made; for the default base, what ships if there are none.
    :param recipe: of the command line.
    :raises CheckpointError: where mode `speculative` says anything else than the base.
    """
    together = workers()
    if together.first and base is not None:
        place_of(base, folder / "base")
    together.wait()
    place = None if base is None else place_of(base, folder / "base")
    found = open_base(place, dtype, str(together.device))
    data = text_of(found, base, text)
    held_out = HELD_OUT_TEXT if base is None else folder / HELD_OUT_TEXT.name
    numbers = {"minutes": 106.0, "distil": 0.5, **{_NAMES.get(name, name): value for name, value in recipe.items()}}
    with alone(folder / "run.pt", wait=False) if together.first else nullcontext():
        if together.first and not held_out.exists():
            write_held_out(found, held_out)
        together.wait()
        run = TrainingRun(found, data, [held_out], folder, Recipe(**numbers), compiled, together)
        run.resume(None)
        run.train()
        if together.first:
            _finish(run, base_place(place), prompts, tokens, dtype)


def _finish(run: TrainingRun, base: Path, prompts: Sequence[str], tokens: int, dtype: str) -> None:
    """Write the model, and see that it says what the base says."""
    model = run.folder / "model"
    with whole(model) as part:
        part.mkdir(exist_ok=True)
        for path in base.iterdir():
            if path.suffix in (".json", ".safetensors", ".jinja", ".txt", ".model"):
                shutil.copy(path, part)
        (part / DENOISER.parent).mkdir()
        shutil.copy(run.folder / DENOISER.name, part / DENOISER)
    lines = decode_table(model / DENOISER, dtype, tokens, prompts, str(model))
    wrong = [line for line in lines if line.options["mode"] == "speculative" and line.same_answers != len(prompts)]
    if wrong:
        raise CheckpointError(f"{model} says other than its base with {wrong[0].options}; use --dtype float32")
    progress = run.progress
    card = _CARD.format(
        name=run.base.name,
        denoiser=DENOISER.as_posix(),
        minutes=progress.seconds / 60,
        steps=progress.steps,
        prompts=len(prompts),
        tokens=tokens,
        table="\n".join(_row(line, len(prompts)) for line in lines),
        folder=model.as_posix(),
    )
    (model / "README.md").write_text(card, encoding="utf-8")
    click.echo(f"{model} is the model, and its README.md says what it is worth")


def _row(line: DecodingFigures, prompts: int) -> str:
    name = ", ".join(str(value) if key == "mode" else f"{key} {value}" for key, value in line.options.items())
    return f"| {name} | {line.tokens_per_pass:.3f} | {line.rows_per_token:.1f} | {line.same_answers} of {prompts} |"
