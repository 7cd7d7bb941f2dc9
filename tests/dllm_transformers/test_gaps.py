"""Mask ids inside `input_ids`: gaps are filled in place, once, or refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer

from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Usage
from dllm_transformers import DiffusionModelForCausalLM
from dllm_transformers.gaps import behind_gaps
from dllm_transformers.gaps import filled

from .checkpoints import NEEDED
from .checkpoints import copy_of

GREEDY: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
#: Families that fill gaps.
FILLING = ("dream", "open_dcoder")
GIVEN = [7, 8, -1, 9, 20, -1, -1, 10, 11]


class Seen(BaseStreamer):
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def put(self, value: Tensor) -> None:
        self.ids += value.flatten().tolist()

    def end(self) -> None:
        pass


def loaded(name: str, folder: Path, tokenizer: Path) -> tuple[Any, int]:
    """A model and its mask id."""
    kind: Any = DiffusionModelForCausalLM if name in NEEDED else AutoModelForCausalLM
    model = kind.from_pretrained(copy_of(name, folder / name, tokenizer), **NEEDED.get(name, {}))
    return model, model.spec.mask_id


@pytest.mark.parametrize("name", FILLING)
@pytest.mark.parametrize("ends", [[], [10]])
def test_gaps_are_filled_in_place(name: str, ends: list[int], tmp_path: Path, tiny_folder: Path) -> None:
    """The prompt comes once, given tokens as they were, and what is new behind it; the same in a batch."""
    model, mask = loaded(name, tmp_path, tiny_folder)
    ids = torch.tensor([[mask if token < 0 else token for token in GIVEN]])
    streamer = Seen()
    # An empty list would leave the model's own.
    found = model.generate(ids, streamer=streamer, **GREEDY, eos_token_id=ends or [1])
    assert found.shape[1] == ids.shape[1] + (0 if ends else 8)
    row = found[0].tolist()
    assert mask not in row
    assert [new for new, token in zip(row, GIVEN, strict=False) if token >= 0] == [t for t in GIVEN if t >= 0]
    assert streamer.ids == [*ids[0].tolist(), *row[len(GIVEN) :]]
    other = torch.tensor([[0, 0, 0, 5, 6, 7, 12, 13, 14]])
    both = model.generate(
        torch.cat([other, ids]),
        attention_mask=(torch.cat([other, ids]) != 0).long(),
        **GREEDY,
        eos_token_id=ends or [1],
    )
    assert both[1, : len(row)].tolist() == row
    assert both[0, :9].tolist() == other[0].tolist()


@pytest.mark.parametrize("name", FILLING[:1])
def test_criteria_look_at_new_tokens(name: str, tmp_path: Path, tiny_folder: Path) -> None:
    """Stopping criteria see what was there before, and are asked about new tokens only."""
    model, mask = loaded(name, tmp_path, tiny_folder)
    ids = torch.tensor([[mask if token < 0 else token for token in GIVEN]])
    lengths: list[int] = []

    def asked(sequence: Tensor, _scores: Any) -> Tensor:
        lengths.append(sequence.shape[1])
        assert mask not in sequence
        return torch.tensor([sequence.shape[1] >= len(GIVEN) + 3])

    found = model.generate(ids, stopping_criteria=[asked], **GREEDY, eos_token_id=[1])
    assert lengths == [len(GIVEN) + count for count in (1, 2, 3)]
    assert found.shape[1] == len(GIVEN) + 3


def test_other_families_refuse_gaps(tmp_path: Path, tiny_folder: Path) -> None:
    """By the place of the first one."""
    model, mask = loaded("llada_dense", tmp_path, tiny_folder)
    with pytest.raises(RequestError, match=r"holds the mask id .* at position 2; remove it"):
        model.generate(torch.tensor([[mask if token < 0 else token for token in GIVEN]]), **GREEDY)


def test_what_stands_in_a_gap() -> None:
    """The answer, what stood behind its end, the pad token where that was open; given tokens stay."""
    usage = Usage(2, 0, 2, 5, {}, 1, 0.0, 0.0, "diffusion", "none", "approximate", None)
    finish = Finish(1, 1, "eos", (31, 8), "", usage, stop_token=2, rest=(2, None, 33, 34))
    ids = torch.tensor([[0, 7, 99, 8, 99, 99, 99], [0, 0, 0, 4, 5, 6, 7]])
    assert behind_gaps([[7, 99, 8, 99, 99, 99], [4, 5, 6, 7]], 99) == [5, 0]
    rows = filled(ids, [finish, finish], [5, 0], mask=99, pad=0)
    assert rows.tolist() == [[0, 7, 31, 8, 2, 0, 33], [0, 0, 0, 4, 5, 6, 7]]


@pytest.mark.parametrize("name", FILLING)
def test_scores_around_given_tokens(name: str, tmp_path: Path, tiny_folder: Path) -> None:
    """Of what is new behind the prompt, as without scores; the engine tells given tokens from drawn ones."""
    model, mask = loaded(name, tmp_path, tiny_folder)
    ids = torch.tensor([[mask if token < 0 else token for token in GIVEN]])
    wanted = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    found = model.generate(ids, **GREEDY, **wanted, eos_token_id=[1])
    new = found.sequences[0, len(GIVEN) :].tolist()
    assert found.sequences.equal(model.generate(ids, **GREEDY, eos_token_id=[1]))
    assert [int(scores.argmax()) for scores in found.scores] == new
    assert len(found.logits) == len(new)
    request = Request(ids[0].tolist(), SamplingConfig(max_new_tokens=4), frozenset({1}), logits=True)
    finish = model.engine_model().engine().generate([request])[0]
    given = GIVEN[GIVEN.index(-1) :]
    assert finish.logits is not None
    assert [logits is None for logits in finish.logits] == [token >= 0 for token in given] + [False] * 4
