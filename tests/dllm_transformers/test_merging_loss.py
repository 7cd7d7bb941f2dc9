"""DreamOn's loss against loops over tokens: masks that take in others are left out of the text altogether."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins.errors import OptionError
from dllm_transformers import DiffusionModelForCausalLM

from .checkpoints import NEEDED
from .checkpoints import change
from .checkpoints import copy_of

LENGTH, EXPAND = 14, 225


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """The tiny checkpoint, which says what expands."""
    found = copy_of("dreamon", tmp_path_factory.mktemp("hub") / "dreamon", tiny_folder)
    change(found, expand_token_id=EXPAND)
    return found


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    """In doubles."""
    return DiffusionModelForCausalLM.from_pretrained(folder, **NEEDED["dreamon"]).double()


def batch(model: Any, padded: str = "right") -> dict[str, Tensor]:
    """A row with a prompt of three tokens and three ends of text, and a short one that is padded."""
    ids = torch.randint(6, 60, (2, LENGTH), generator=torch.Generator().manual_seed(5))
    mask, labels = torch.ones_like(ids), ids.clone()
    ids[0, 11:] = ids[1, 9 if padded == "right" else 13] = model.spec.eos_id
    mask[1, slice(10, None) if padded == "right" else slice(4)] = 0
    labels = ids.where(mask.bool(), -100)
    labels[0, :3] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def merged(model: Any, given: dict[str, Tensor], seed: int) -> list[tuple[float, list[int], dict[int, int]]]:
    """Of each row its share, the noisy text as it is forwarded, and what is to be said at which of its places."""
    rng = torch.Generator().manual_seed(seed)
    time, luck = (torch.rand(2, size, generator=rng, dtype=torch.float64) for size in (1, LENGTH))
    coins, chance = (torch.rand(2, size, generator=rng, dtype=torch.float64) for size in (1, LENGTH))
    found = []
    for row in range(2):
        real = [index for index in range(LENGTH) if given["attention_mask"][row, index]]
        clean = [int(given["input_ids"][row, index]) for index in real]
        learnt = [place for place, index in enumerate(real) if place and given["labels"][row, index] != -100]
        by_chance = [place for place in learnt if luck[row, real[place]] < time[row]]
        opened = {place for place in learnt if place in by_chance or clean[place] == model.spec.eos_id}
        likely = 0.5 if coins[row] < 0.5 else 0.5 * (1 - len(by_chance) / len(learnt))
        said, gone = {place: clean[place] for place in opened}, set()
        for place in learnt:
            if clean[place] == model.spec.eos_id:
                break
            if {place, place + 1} <= opened and chance[row, real[place]] < likely:
                said[place] = EXPAND
                gone.add(place + 1)
        left = [place for place in range(len(clean)) if place not in gone]
        noisy = [model.spec.mask_id if place in opened else clean[place] for place in left]
        found.append((float(time[row]), noisy, {left.index(place): said[place] for place in opened - gone}))
    return found


def reference(model: Any, given: dict[str, Tensor], seed: int) -> float:
    """The sum over words, and the mean over ends of text, divided by the number of words and one more."""
    words: list[float] = []
    ends: list[float] = []
    for share, noisy, said in merged(model, given, seed):
        odds = torch.softmax(model(torch.tensor([noisy])).logits[0], -1)
        for place, token in said.items():
            one = -(1 - share) * math.log(float(odds[place - 1, token]))
            (ends if token == model.spec.eos_id else words).append(one)
    return (sum(words) + sum(ends) / max(len(ends), 1)) / (len(words) + bool(ends))


def loss(model: Any, given: dict[str, Tensor], seed: int, **more: Any) -> Tensor:
    found: Tensor = model(**given, generator=torch.Generator().manual_seed(seed), **more).loss
    return found


@pytest.mark.parametrize("padded", ["right", "left"])
def test_loss_equals_plain_loops(padded: str, model: Any) -> None:
    """Within 1e-5 in doubles, whatever is padded and drawn; and as a share of a larger step."""
    given = batch(model, padded)
    drawn = [merged(model, given, seed) for seed in range(12)]
    assert any(EXPAND in said.values() for rows in drawn for _, _, said in rows)
    with torch.no_grad():
        for seed in range(12):
            assert float(loss(model, given, seed)) == pytest.approx(reference(model, given, seed), rel=1e-5, abs=1e-5)
        # Nothing predicts the first token of the second text.
        labels = int((given["labels"] != -100).sum()) - 1
        part = float(loss(model, given, 3, num_items_in_batch=torch.tensor(50)))
        assert part == pytest.approx(reference(model, given, 3) * labels / 50, rel=1e-5, abs=1e-5)


def test_what_has_no_effect_is_refused(model: Any, folder: Path, tmp_path: Path, tiny_folder: Path) -> None:
    """Positions of one's own; and a checkpoint that does not say what expands."""
    with pytest.raises(OptionError, match="position_ids has no effect where masks"):
        loss(model, batch(model), 1, position_ids=torch.arange(LENGTH)[None])
    unsaid = copy_of("dreamon", tmp_path / "unsaid", tiny_folder)
    without: Any = DiffusionModelForCausalLM.from_pretrained(unsaid, **NEEDED["dreamon"])
    with pytest.raises(OptionError, match="has 230 token ids, and the token that expands would be 151667"):
        loss(without, batch(without), 1)
