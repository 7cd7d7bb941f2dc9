"""Saving, resuming and exporting the denoiser."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save_file
from torch import Tensor

from dllm_plugins.denoisers.low_rank import FORMAT
from dllm_plugins.errors import CheckpointError
from dllm_plugins.training.model import LowRankDenoiser


@dataclass(slots=True)
class TrainingProgress:
    """Where a run is: optimiser steps, seconds trained, open rows seen."""

    steps: int = 0
    seconds: float = 0.0
    rows: int = 0


def export(denoiser: LowRankDenoiser, path: Path, shortlist: Tensor, metadata: dict[str, str]) -> None:
    """Write the weights in bfloat16 under their shipped names (dots for double underscores).

    :param shortlist: ids of the tokens that drafts are chosen from.
    """
    tensors = {
        name.replace("__", "."): weight.detach().to(torch.bfloat16).contiguous()
        for name, weight in denoiser.weights.items()
    }
    tensors["draft_tokens"] = shortlist.to(torch.int32).contiguous()
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"format": FORMAT, **metadata})
    partial.replace(path)


def load_weights(denoiser: LowRankDenoiser, path: Path) -> None:
    """Start from an exported file.

    :raises CheckpointError: if its names or shapes are not those of `denoiser`.
    """
    tensors = load_file(path)
    tensors.pop("draft_tokens", None)
    copy_weights(denoiser, {name.replace(".", "__"): tensor for name, tensor in tensors.items()})


def copy_weights(denoiser: LowRankDenoiser, tensors: dict[str, Tensor]) -> None:
    """Copy `tensors` into the parameters of the same names."""
    expected = {name: tuple(weight.shape) for name, weight in denoiser.weights.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        wrong = sorted(set(expected.items()) ^ set(found.items()))[:4]
        raise CheckpointError(f"weights do not fit the denoiser being trained, for example {wrong}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            denoiser.weights[name].copy_(tensor)


def save_run(
    path: Path, denoiser: LowRankDenoiser, optimiser: torch.optim.Optimizer, progress: TrainingProgress
) -> None:
    """Everything needed to go on, written so that an interrupted write loses nothing."""
    state: dict[str, Any] = {
        "weights": {name: weight.detach() for name, weight in denoiser.weights.items()},
        "optimiser": optimiser.state_dict(),
        "progress": {"steps": progress.steps, "seconds": progress.seconds, "rows": progress.rows},
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def resume_run(path: Path, denoiser: LowRankDenoiser, optimiser: torch.optim.Optimizer) -> TrainingProgress:
    """Load what :func:`save_run` wrote."""
    state = torch.load(path, weights_only=True)
    copy_weights(denoiser, state["weights"])
    optimiser.load_state_dict(state["optimiser"])
    return TrainingProgress(**state["progress"])
