"""Copies of what a user holds: deep ones and pickled ones of models, configs and prefix caches that were in use."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers import AutoModelForCausalLM

from dllm_transformers import PrefixCache

from .checkpoints import NEEDED
from .checkpoints import copy_of

PROMPT = torch.tensor([[7, 8, 9, 10]])
GREEDY: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}


def pickled(value: Any) -> Any:
    """Through bytes and back."""
    return pickle.loads(pickle.dumps(value))


COPIES = pytest.mark.parametrize("copied", [copy.deepcopy, pickled])


@COPIES
@pytest.mark.parametrize("name", ["llada_dense", "dream", "llada2_0"])
def test_a_diffusion_model(name: str, copied: Callable[[Any], Any], tmp_path: Path, tiny_folder: Path) -> None:
    """It answers as the first one does, on weights of its own, and is saved as that one is."""
    folder = copy_of(name, tmp_path / "first", tiny_folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, **NEEDED.get(name, {}))
    first = model.generate(PROMPT, **GREEDY)
    again = copied(model)
    assert torch.equal(again.generate(PROMPT, **GREEDY), first)
    with torch.no_grad():
        again.get_output_embeddings().weight.neg_()
    assert not torch.equal(again.generate(PROMPT, **GREEDY), first)
    assert torch.equal(model.generate(PROMPT, **GREEDY), first)
    again.save_pretrained(tmp_path / "second")
    assert copied(AutoConfig.from_pretrained(folder)).original() == AutoConfig.from_pretrained(folder).original()


@COPIES
def test_the_tri_mode_model_and_its_cache(checkpoint: Path, copied: Callable[[Any], Any]) -> None:
    """A copy of a prefix cache is empty, and serves a copy of the model."""
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    cache = PrefixCache(300)
    first = model.generate(PROMPT, cache=cache, **GREEDY)
    assert cache.get_seq_length() > 0
    again, empty = copied(model), copied(cache)
    assert (empty.get_seq_length(), empty.prefixes.positions) == (0, 300)
    assert torch.equal(again.generate(PROMPT, cache=empty, **GREEDY), first)
    assert empty.get_seq_length() > 0
