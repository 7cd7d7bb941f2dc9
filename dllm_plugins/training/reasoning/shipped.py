"""The cell that ships as `dllm-path`: left to right first, then masked diffusion as family A2D has it."""

import shutil
from dataclasses import replace
from pathlib import Path

from dllm_plugins.reasoning import TASKS
from dllm_plugins.training.reasoning.recipe import CellRecipe
from dllm_plugins.training.reasoning.train import CellRun

#: Steps left to right, and of diffusion.
STEPS = (500, 4000)
#: What of a cell's folder ships; the card is written by people.
_FILES = (
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
)


def rebuild(folder: Path, out: Path, recipe: CellRecipe, steps: tuple[int, int] = STEPS) -> None:
    """Train both cells in `folder`, or go on with them, and write the second one's weights and files to `out`."""
    task, first = TASKS["path5"], "path5-ar"
    place = folder / f"path5-mdm-unshifted-from-{first}"
    CellRun(folder / first, task, "ar", replace(recipe, steps=steps[0])).finish()
    CellRun(place, task, "mdm-unshifted", replace(recipe, steps=steps[1], begin=first)).finish()
    out.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        shutil.copyfile(place / "model" / name, out / name)
