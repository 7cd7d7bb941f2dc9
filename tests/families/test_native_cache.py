"""transformers' own classes with our caches: cached equals recomputed, for every family."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.check import CaseModels
from dllm_plugins.conformance.check import first_load
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.native import NativeDenoiser

from ..golden.cases import case_folders

LENGTH, BLOCK = 24, 4


#: Families with these caches: not those whose class hides keys by itself or has an encoder.
ELSEWHERE = ("bert_chat", "diffusion_gemma")
CASES = [pytest.param(Case(folder), id=folder.name) for folder in case_folders() if folder.name not in ELSEWHERE]


def denoiser_of(case: Case) -> NativeDenoiser:
    """A case's denoiser."""
    found = CaseModels(case).get(**first_load(case)).denoiser
    assert isinstance(found, NativeDenoiser)
    return found


def tokens_of(denoiser: NativeDenoiser) -> list[int]:
    """A text with some open positions."""
    drawn = torch.randint(0, denoiser.spec.vocabulary, (LENGTH,), generator=torch.Generator().manual_seed(1)).tolist()
    return [denoiser.spec.mask_id if position % 7 == 3 else token for position, token in enumerate(drawn)]


def segment(
    row: int,
    tokens: Sequence[int],
    positions: Sequence[int],
    groups: bool,
    behind: tuple[tuple[int, int], ...] = (),
    causal: bool = False,
) -> Segment:
    """Some positions of a text, all of them wanted."""
    return Segment(
        row,
        [tokens[position] for position in positions],
        list(positions),
        causal=causal,
        behind=behind,
        wanted=range(len(positions)),
        groups=[position // BLOCK for position in positions] if groups else None,
    )


def logits(denoiser: NativeDenoiser, segments: Sequence[Segment]) -> list[Tensor]:
    """What a pass says, per segment."""
    return [denoiser.logits(hidden) for hidden in denoiser.forward(segments)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("causal", [False, True])
def test_frozen_blocks_equal_one_pass(case: Case, causal: bool) -> None:
    """Block after block against the cache, a block freezing behind the next one's first pass."""
    denoiser = denoiser_of(case)
    tokens = tokens_of(denoiser)
    row = denoiser.open_row()
    (whole,) = logits(denoiser, [segment(row, tokens, range(LENGTH), not causal, causal=causal)])
    store = denoiser.close_row(row)
    assert store.nbytes <= denoiser.keys_bytes([LENGTH]) == store.nbytes * store.room(LENGTH) // store.capacity
    row, frozen, found = denoiser.open_row(), 0, []
    for begin in (0, 8, 12, 20):
        end = {0: 8, 8: 12, 12: 20, 20: 24}[begin]
        newest = range(begin, end)
        if begin > frozen:
            before = segment(row, tokens, range(frozen, begin), not causal, causal=causal)
            behind = ((0, begin - frozen),)
            parts = logits(denoiser, [before, segment(row, tokens, newest, not causal, behind, causal)])
            denoiser.freeze(row, begin - frozen)
            frozen = begin
            found.append(parts[1])
        found.append(logits(denoiser, [segment(row, tokens, newest, not causal, causal=causal)])[0])
        if len(found) > 1 and begin:
            assert torch.allclose(found[-1], found[-2], atol=1e-4)
            found.pop()
    assert denoiser.close_row(row).length == 20
    assert torch.allclose(torch.cat(found), whole, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_held_keys_are_those_of_the_pass(case: Case) -> None:
    """A block against the keys of everything else, just held, says what the whole pass said of it."""
    denoiser = denoiser_of(case)
    tokens, row, block = tokens_of(denoiser), denoiser.open_row(), range(8, 13)
    (whole,) = logits(denoiser, [segment(row, tokens, range(LENGTH), False)])
    denoiser.hold(row, [position for position in range(LENGTH) if position not in block])
    (part,) = logits(denoiser, [segment(row, tokens, block, False)])
    assert torch.allclose(part, whole[block.start : block.stop], atol=1e-4)
    denoiser.release(row)
    (alone,) = logits(denoiser, [segment(row, tokens, block, False)])
    assert not torch.allclose(alone, part, atol=1e-3)
