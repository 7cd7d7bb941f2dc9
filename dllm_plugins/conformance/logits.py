"""Logits of recorded sequences through the engine's own denoiser."""

import torch
from torch import Tensor

from dllm_plugins.conformance.case import Case
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.models import Model

TOLERANCE = 1e-4


def recorded(case: Case) -> list[str]:
    """Names of the recorded sequences."""
    return sorted(name.removesuffix(".logits") for name in case.logits if name.endswith(".logits"))


def produce(case: Case, model: Model, key: str) -> list[Tensor]:
    """Our logits [length, V] of each row's real positions, without padding."""
    ids = case.logits[f"{key}.input_ids"]
    real = case.logits.get(f"{key}.attention_mask", torch.ones_like(ids)).bool()
    given = case.logits.get(f"{key}.position_ids")
    decoder = case.logits.get(f"{key}.decoder_input_ids")
    found = []
    for row, mask in enumerate(real):
        tokens = ids[row][mask].tolist()
        positions = list(range(len(tokens))) if given is None else given[row][mask].tolist()
        handle = model.denoiser.open_row()
        segments = [_segment(case, key, handle, tokens, positions)]
        if decoder is not None:
            canvas = decoder[row].tolist()
            behind = ((0, len(tokens)),)
            positions = list(range(len(tokens), len(tokens) + len(canvas)))
            segments = [
                Segment(handle, tokens, range(len(tokens))),
                Segment(handle, canvas, positions, causal=False, behind=behind, wanted=range(len(canvas))),
            ]
        found.append(model.denoiser.logits(model.denoiser.forward(segments)[-1]))
        model.denoiser.close_row(handle)
    return found


def _segment(case: Case, key: str, handle: int, tokens: list[int], positions: list[int]) -> Segment:
    """Who sees whom, as the case says."""
    modes = case.about.get("logits_modes") or {}
    causal = modes.get(key) == "causal" or "causal in PHYSICAL order" in case.about["attention"]
    block = case.about.get("logits_block_size")
    groups = None if not block else [position // block for position in positions]
    return Segment(handle, tokens, positions, causal=causal, groups=groups, wanted=range(len(tokens)))


def worst(case: Case, model: Model, key: str) -> float:
    """Largest absolute difference at real positions."""
    expected = case.logits[f"{key}.logits"]
    ids = case.logits[f"{key}.input_ids"]
    real = case.logits.get(f"{key}.attention_mask", torch.ones_like(ids)).bool()
    if f"{key}.decoder_input_ids" in case.logits:
        real = torch.ones(expected.shape[:2], dtype=torch.bool)
    ours = produce(case, model, key)
    return max(float((mine - expected[row][real[row]]).abs().max()) for row, mine in enumerate(ours))
