"""A DreamOn that was overfitted to one text fills its gap, however many masks it begins with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from dllm_plugins import Model
from dllm_plugins import load_model
from dllm_plugins.template import Gap
from dllm_plugins.template import Template
from dllm_transformers import DiffusionModelForCausalLM

from .checkpoints import IDS
from .checkpoints import spoken

BEFORE, MIDDLE, AFTER = "def area(r):", " return pi*r", "\n# a circle"
#: So many ends of text are learnt between the gap's text and what follows: there the gap is to shrink.
ENDS = (0, 1, 3, 6)


def example(tokenizer: Any, ends: int) -> tuple[list[int], list[int]]:
    """Tokens of the text, and its labels: the gap alone is learnt."""
    before, middle, after = (tokenizer.encode(part, add_special_tokens=False) for part in (BEFORE, MIDDLE, AFTER))
    middle = [*middle, *[tokenizer.eos_token_id] * ends]
    return [*before, *middle, *after], [*[-100] * len(before), *middle, *[-100] * len(after)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Model:
    """Trained, saved, and loaded as a host does."""
    base = spoken("dream", tmp_path_factory.mktemp("bases") / "dreamon", tiny_folder, expand_token_id=IDS - 2)
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    learner: Any = DiffusionModelForCausalLM.from_pretrained(base, preset="dreamon")
    learner.loss_only = True
    steps = torch.optim.Adam(learner.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(3)
    learner.train()
    for step in range(400):
        ids, labels = (torch.tensor([part] * 8) for part in example(tokenizer, ENDS[step % len(ENDS)]))
        steps.zero_grad()
        learner(input_ids=ids, labels=labels, generator=generator).loss.backward()
        steps.step()
    folder = tmp_path_factory.mktemp("overfitted") / "model"
    learner.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_model(str(folder), device="cpu", dtype="float32", preset="dreamon")


@pytest.mark.slow
@pytest.mark.parametrize("masks", [4, 10, 16])
def test_the_gap_takes_the_length_of_what_was_learnt(masks: int, model: Model) -> None:
    """It grows from fewer masks than the text has tokens, and shrinks from more."""
    assert len(model.encode_text(MIDDLE)) == 12
    template = Template(BEFORE, Gap(max_tokens=24), AFTER)
    found = model.fill(template, mode="dreamon", preset_options={"min_gen_len": masks})
    assert found.text == BEFORE + MIDDLE + AFTER
