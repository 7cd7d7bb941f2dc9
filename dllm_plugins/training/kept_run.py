"""The checkpoint of a run, by which an interrupted one goes on to the bit."""

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.whole import whole


def save_run(
    path: Path, model: nn.Module, optimisers: Sequence[Optimizer], recipe: Mapping[str, Any], **progress: float
) -> None:
    """Write the checkpoint, so that an interrupted write loses nothing.

    :param recipe: what the run may not change half-way.
    :param progress: how far it is; :func:`resume_run` gives it back.
    """
    state = {
        "model": model.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        "recipe": dict(recipe),
        "progress": progress,
    }
    with whole(path) as part:
        torch.save(state, part)


def resume_run(
    path: Path, model: nn.Module, optimisers: Sequence[Optimizer], recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """Load what :func:`save_run` wrote; its progress, which is empty where there is no file.

    :raises CheckpointError: if it was made by another recipe.
    """
    if not path.exists():
        return {}
    state = torch.load(path, weights_only=True)
    if state.get("recipe") != recipe:
        raise CheckpointError(f"{path} was made with {state.get('recipe')}, not {recipe}; use another folder")
    model.load_state_dict(state["model"])
    for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(kept)
    found: dict[str, Any] = state["progress"]
    return found
