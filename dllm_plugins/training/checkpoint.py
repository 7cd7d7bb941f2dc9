"""Saving, resuming and exporting the denoiser."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dllm_kernels.decoder import DecoderWeights
from dllm_plugins.denoisers.base_mark import KEY
from dllm_plugins.denoisers.base_mark import check_embedding
from dllm_plugins.denoisers.base_mark import check_shape
from dllm_plugins.denoisers.low_rank import DRAFTS
from dllm_plugins.denoisers.low_rank import FORMAT
from dllm_plugins.denoisers.low_rank import read_low_rank
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
        name.replace("__", "."): weight.detach().to("cpu", torch.bfloat16).contiguous()
        for name, weight in denoiser.weights.items()
    }
    tensors[DRAFTS] = shortlist.to(torch.int32).contiguous()
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"format": FORMAT, **metadata})
    partial.replace(path)


def load_weights(denoiser: LowRankDenoiser, path: Path, base: DecoderWeights) -> None:
    """Start from an exported file.

    :raises CheckpointError: if it is another base's, or its names or shapes are not those of `denoiser`.
    """
    tensors, metadata = read_low_rank(path)
    _check_base(metadata, base, path)
    tensors.pop(DRAFTS, None)
    copy_weights(denoiser, {name.replace(".", "__"): tensor for name, tensor in tensors.items()})


def _check_base(mark: dict[str, str], base: DecoderWeights, path: Path) -> None:
    check_shape(mark, base.shape, str(path))
    check_embedding(mark, base.embedding, str(path))


def copy_weights(denoiser: LowRankDenoiser, tensors: dict[str, Tensor]) -> None:
    """Copy `tensors` into the parameters of the same names."""
    expected = {name: tuple(weight.shape) for name, weight in denoiser.weights.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        wrong = sorted(set(expected.items()) ^ set(found.items()))[:4]
        raise CheckpointError(
            f"weights do not fit the denoiser being trained, for example {wrong}; give the --rank and --chain they were "
            f"trained with, or another --folder"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            denoiser.weights[name].copy_(tensor)


def save_run(
    path: Path,
    denoiser: LowRankDenoiser,
    optimiser: torch.optim.Optimizer,
    progress: TrainingProgress,
    mark: dict[str, Any],
) -> None:
    """Everything needed to go on, written so that an interrupted write loses nothing.

    :param mark: whose run it is, see :mod:`dllm_plugins.denoisers.base_mark`.
    """
    state: dict[str, Any] = {
        "weights": {name: weight.detach() for name, weight in denoiser.weights.items()},
        "optimiser": optimiser.state_dict(),
        "progress": {"steps": progress.steps, "seconds": progress.seconds, "rows": progress.rows},
        "mark": {KEY: json.dumps(mark)},
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def resume_run(
    path: Path, denoiser: LowRankDenoiser, optimiser: torch.optim.Optimizer, base: DecoderWeights
) -> TrainingProgress:
    """Load what :func:`save_run` wrote.

    :raises CheckpointError: for the run of another base, or of another rank.
    """
    state = torch.load(path, weights_only=True, map_location="cpu")
    _check_base(state.get("mark", {}), base, path)
    copy_weights(denoiser, state["weights"])
    optimiser.load_state_dict(state["optimiser"])
    return TrainingProgress(**state["progress"])
