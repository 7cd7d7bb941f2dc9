"""Mask ids inside `input_ids`: gaps are filled in place, once, or refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer
from transformers import LlamaForCausalLM
from transformers.generation.streamers import BaseStreamer

from dllm_plugins import Edit
from dllm_plugins import Finish
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Usage
from dllm_transformers import DiffusionModelForCausalLM
from dllm_transformers import Regex
from dllm_transformers import block_diffusion
from dllm_transformers import edit_inputs
from dllm_transformers.gaps import behind_gaps
from dllm_transformers.gaps import filled

from .checkpoints import NEEDED
from .checkpoints import copy_of

GREEDY: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
#: Of the families that fill gaps: shifted ones, one that is not, and one that decodes in blocks.
FILLING = ("dream", "open_dcoder", "llada_dense", "sdar")
#: Blocks in which every gap sees what follows it.
OWN: dict[str, dict[str, Any]] = {"sdar": {"block_length": 16}}
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
def test_gaps_are_filled_in_place(name: str, tmp_path: Path, tiny_folder: Path) -> None:
    """Given tokens as they were, and nothing behind them; the same in a batch, beside a shorter prompt."""
    model, mask = loaded(name, tmp_path, tiny_folder)
    ids = torch.tensor([[mask if token < 0 else token for token in GIVEN]])
    ways: dict[str, Any] = {"do_sample": False, "pad_token_id": 0, **OWN.get(name, {})}
    found = model.generate(ids, **ways)
    assert found.shape == ids.shape
    assert mask not in found
    assert [new for new, token in zip(found[0].tolist(), GIVEN, strict=True) if token >= 0] == [
        token for token in GIVEN if token >= 0
    ]
    both = torch.cat([torch.tensor([[0, 0, 0, 5, 6, mask, 12, 13, mask]]), ids])
    filled_both = model.generate(both, attention_mask=(both != 0).long(), **ways)
    assert filled_both[1].equal(found[0])
    alone = model.generate(both[:1, 3:], **ways)
    assert filled_both[0].tolist() == [0, 0, 0, *alone[0].tolist()]


@pytest.mark.parametrize("name", FILLING)
@pytest.mark.parametrize("ends", [[], [10]])
def test_new_tokens_behind_gaps(name: str, ends: list[int], tmp_path: Path, tiny_folder: Path) -> None:
    """Where they are asked for: the prompt comes once, and what ends a text ends those only."""
    model, mask = loaded(name, tmp_path, tiny_folder)
    ids = torch.tensor([[mask if token < 0 else token for token in GIVEN]])
    streamer, ways = Seen(), {**GREEDY, **OWN.get(name, {})}
    # An empty list would leave the model's own.
    found = model.generate(ids, streamer=streamer, **ways, eos_token_id=ends or [1])
    row = found[0].tolist()
    assert len(GIVEN) <= len(row) <= len(GIVEN) + 8
    assert mask not in row
    assert [new for new, token in zip(row, GIVEN, strict=False) if token >= 0] == [t for t in GIVEN if t >= 0]
    assert not set(ends or [1]).intersection(row[len(GIVEN) : -1])
    assert streamer.ids == [*ids[0].tolist(), *row[len(GIVEN) :]]
    other = torch.tensor([[0, 0, 0, 5, 6, 7, 12, 13, 14]])
    both = model.generate(
        torch.cat([other, ids]), attention_mask=(torch.cat([other, ids]) != 0).long(), **ways, eos_token_id=ends or [1]
    )
    assert both[1, : len(row)].tolist() == row
    assert both[0, :9].tolist() == other[0].tolist()


def test_the_default_model_fills_gaps(tiny_folder: Path) -> None:
    """Its mask id stands behind its vocabulary; the mode is the one that sees what follows, unless another is named."""
    model = LlamaForCausalLM.from_pretrained(tiny_folder)
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    ids = torch.tensor([[5, 6, 259, 259, 7, 8, 259, 9]])
    ways: dict[str, Any] = {"custom_generate": block_diffusion, "denoiser": denoiser, "pad_token_id": 0}
    # Only a model of ours knows that it need not say this.
    with pytest.warns(UserWarning, match="default `max_length`"):
        found = model.generate(ids, **ways)
    assert found.shape == ids.shape
    assert found[0, [0, 1, 4, 5, 7]].tolist() == [5, 6, 7, 8, 9]
    assert int(found.max()) < 259
    with pytest.raises(OptionError, match=r"mode 'speculative' writes to the end .* use mode 'diffusion'"):
        model.generate(ids, mode="speculative", max_new_tokens=2, **ways)


def test_a_batch_of_which_some_have_gaps(tmp_path: Path, tiny_folder: Path) -> None:
    """Nobody says how long the answers of the others get."""
    model, mask = loaded("llada_dense", tmp_path, tiny_folder)
    with pytest.raises(RequestError, match="prompt 0 of the batch has no mask to fill, and others have"):
        model.generate(torch.tensor([[7, 8, 9], [7, mask, 9]]), pad_token_id=0)


def test_seeds_and_temperatures(tmp_path: Path, tiny_folder: Path) -> None:
    """As with any prompt: a seed repeats what is drawn."""
    model, mask = loaded("llada_dense", tmp_path, tiny_folder)
    ids = torch.tensor([[7, mask, mask, mask, mask, 9]])
    ways: dict[str, Any] = {"do_sample": True, "temperature": 1.5, "pad_token_id": 0}
    found = [model.generate(ids, seed=seed, **ways) for seed in (1, 1, 2)]
    assert found[0].equal(found[1])
    assert not found[0].equal(found[2])


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


def test_blocks_that_do_not_see_what_follows_refuse(tmp_path: Path, tiny_folder: Path) -> None:
    """With the length that blocks would need."""
    model, mask = loaded("sdar", tmp_path, tiny_folder)
    with pytest.raises(OptionError, match=r"does not see what follows it.* block_length="):
        model.generate(torch.tensor([[7, 8, 9, mask, 9, 9]]), **GREEDY, block_length=2)


def test_a_gap_with_nothing_before_it(tmp_path: Path, tiny_folder: Path) -> None:
    """A model that predicts a token from those before it says what to put there; others fill it."""
    model, mask = loaded("sdar", tmp_path, tiny_folder)
    with pytest.raises(RequestError, match=r"nothing stands before the first gap, and .* put one there: .*bos_token"):
        model.generate(torch.tensor([[mask, 7, 8]]), do_sample=False, pad_token_id=0, **OWN["sdar"])
    model, mask = loaded("llada_dense", tmp_path, tiny_folder)
    assert model.generate(torch.tensor([[mask, 7, 8]]), do_sample=False, pad_token_id=0)[0, 1:].tolist() == [7, 8]


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
    """Of all positions from the first gap on; without new tokens, too, and in a batch of unequal gaps."""
    model, mask = loaded(name, tmp_path, tiny_folder)
    ids, ways = torch.tensor([[mask if token < 0 else token for token in GIVEN]]), {**GREEDY, **OWN.get(name, {})}
    wanted = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    found = model.generate(ids, **ways, **wanted, eos_token_id=[1])
    new = found.sequences[0, GIVEN.index(-1) :].tolist()
    both = torch.cat([torch.tensor([[0, 0, 0, 5, 6, 4, 12, 13, mask]]), ids])
    inside = model.generate(both, attention_mask=(both != 0).long(), **{**ways, "max_new_tokens": None}, **wanted)
    last = inside.sequences[:, -len(inside.scores) :]
    assert len(inside.scores) == len(GIVEN) - GIVEN.index(-1)
    assert torch.stack(inside.logits, 1).argmax(-1).equal(last)
    drawn = [[bool(row.isfinite().sum() > 1) for row in column] for column in inside.logits]
    assert [list(column) for column in zip(*drawn, strict=True)] == [
        [token == mask for token in row[2:]] for row in both.tolist()
    ]
    assert found.sequences.equal(model.generate(ids, **ways, eos_token_id=[1]))
    assert [int(scores.argmax()) for scores in found.scores] == new
    assert len(found.logits) == len(new)


@pytest.mark.parametrize("name", FILLING)
def test_gaps_that_must_be_something(name: str, tmp_path: Path, tiny_folder: Path) -> None:
    """Each run of masks is held to it, and what is written behind the prompt; what is given stays."""
    model, mask = loaded(name, tmp_path, tiny_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    ways: dict[str, Any] = {"do_sample": False, "pad_token_id": 0, "tokenizer": tokenizer, **OWN.get(name, {})}
    ids = torch.tensor([[mask if token < 0 else token for token in GIVEN]])
    gaps = [place for place, token in enumerate(GIVEN) if token < 0]
    found = model.generate(ids, constraint=Regex("[0-9]{1,2}"), **ways)
    assert found.shape == ids.shape
    texts = [str(tokenizer.decode([token])) for token in found[0, gaps].tolist()]
    assert re.fullmatch("[0-9]{3}", "".join(texts))
    found[0, gaps] = mask
    assert found.equal(ids)
    longer = model.generate(ids, constraint=Regex("[0-9]{1,2}"), max_new_tokens=4, **ways)
    behind = [token for token in longer[0, ids.shape[1] :].tolist() if token not in {0, *model.spec.stop_ids}]
    assert re.fullmatch("[0-9]{1,2}", str(tokenizer.decode(behind)))
    with pytest.raises(RequestError, match="gap 1: no text of exactly 1 tokens fulfils its constraint; make it 2"):
        model.generate(ids, constraint=Regex("ab"), **ways)
    with pytest.raises(OptionError, match="needs the model's tokenizer"):
        model.generate(ids, constraint=Regex("ab"), **{**ways, "tokenizer": None})


def test_each_gap_of_each_prompt_must_be_something_else(tmp_path: Path, tiny_folder: Path) -> None:
    """A list for each prompt, with one for each run of masks; and one more for what is written behind it."""
    model, mask = loaded("llada_dense", tmp_path, tiny_folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder)
    ways: dict[str, Any] = {"do_sample": False, "pad_token_id": 0, "tokenizer": tokenizer}
    ids = torch.tensor([[mask if token < 0 else token for token in GIVEN], [0, 0, 0, 0, 5, 6, mask, 12, 13]])
    ways["attention_mask"] = (ids != 0).long()
    number, word = Regex("[0-9]{1,2}"), Regex("[a-c]{1,2}")
    found = model.generate(ids, constraint=[[number, word], word], **ways)
    assert re.fullmatch("[0-9]", str(tokenizer.decode(found[0, 2:3])))
    assert re.fullmatch("[a-c]{2}", str(tokenizer.decode(found[0, 5:7])))
    assert re.fullmatch("[a-c]", str(tokenizer.decode(found[1, 6:7])))
    free = model.generate(ids, **ways)
    assert model.generate(ids, constraint=[None, [None]], **ways).equal(free)
    longer = model.generate(ids, constraint=[[None, word, number], None], max_new_tokens=4, **ways)
    behind = [token for token in longer[0, len(GIVEN) :].tolist() if token not in {0, *model.spec.stop_ids}]
    assert re.fullmatch("[0-9]{1,2}", str(tokenizer.decode(behind)))
    with pytest.raises(OptionError, match=r"3 entries for a prompt with 2 gaps \(runs of masks\); give one for each, "):
        model.generate(ids, constraint=[[word, word, word], word], **ways)
    with pytest.raises(OptionError, match="give one for each and one for what is written behind it"):
        model.generate(ids, constraint=[[word, word], word], max_new_tokens=4, **ways)


def test_spans_of_a_text_are_masks(tmp_path: Path, tiny_folder: Path) -> None:
    """As many as the tokens that they hold; the rest of the text comes back, whatever is written."""
    model, mask = loaded("open_dcoder", tmp_path, tiny_folder)
    tokenizer, text = AutoTokenizer.from_pretrained(tiny_folder), "once upon a time"
    inputs = edit_inputs(Edit(text, [(5, 9)]), tokenizer, mask_token_id=mask)
    assert inputs["input_ids"][0].tolist().count(mask) == len(tokenizer.encode("upon", add_special_tokens=False))
    written = str(tokenizer.decode(model.generate(inputs["input_ids"])[0], skip_special_tokens=True))
    assert written.startswith("once ")
    assert written.endswith(" a time")
    with pytest.raises(RequestError, match="mask_token_id"):
        edit_inputs(Edit(text, [(5, 9)]), tokenizer)
