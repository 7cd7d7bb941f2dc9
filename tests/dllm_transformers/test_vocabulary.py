"""More token ids, fewer, and a mask token where there is none: in weights, config, original format and every host."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.gguf.opened import open_gguf
from dllm_plugins.llama_cpp.convert import convert
from dllm_plugins.llama_cpp.load import text_of
from dllm_transformers import DiffusionModelForCausalLM
from dllm_transformers import add_mask_token

from ..golden.cases import CLONED
from .checkpoints import IDS
from .checkpoints import NEEDED
from .checkpoints import change
from .checkpoints import copy_of
from .checkpoints import spoken

MORE = 9
SPECIAL = {"additional_special_tokens": ["<tool>", "</tool>"]}
#: Cases of every class that computes, and of heads that are the embedding.
EVERY = sorted(set(CLONED) - {"fastdllm_v1", "fastdllm_factor"})


@pytest.mark.parametrize("name", EVERY)
def test_every_family_takes_more_ids(name: str, tmp_path: Path, tiny_folder: Path) -> None:
    """What was there computes as before, and the original format is read back with the new rows."""
    folder, ids = copy_of(name, tmp_path / "first", tiny_folder), torch.arange(6, 14)[None]
    said: dict[str, Any] = {"preset": "mdlm"} if name == "a2d_qwen3" else NEEDED.get(name, {})
    model = DiffusionModelForCausalLM.from_pretrained(folder, **said)
    before, size = {key: value.clone() for key, value in model.native.state_dict().items()}, model.checkpoint.vocabulary
    found = model.resize_token_embeddings(size + MORE)
    assert found is model.get_input_embeddings()
    assert found.num_embeddings == model.checkpoint.vocabulary == size + MORE
    assert model.config.get_text_config().vocab_size == size + MORE
    for key, value in model.native.state_dict().items():
        assert torch.equal(value[: len(before[key])] if value.ndim else value, before[key])
    model.save_pretrained(tmp_path / "again")
    again = DiffusionModelForCausalLM.from_pretrained(tmp_path / "again", **said)
    assert again.spec.vocabulary == size + MORE
    assert all(map(torch.equal, again.native.state_dict().values(), model.native.state_dict().values()))
    with torch.no_grad():
        given = {} if again.checkpoint.layout.noise == "masked" else {"decoder_input_ids": ids}
        assert torch.equal(again(ids, **given).logits, model(ids, **given).logits)


@pytest.mark.parametrize("family", ["llada", "dream-tied", "sdar"])
def test_new_special_tokens_in_every_host(family: str, tmp_path: Path, tiny_folder: Path) -> None:
    """New rows begin at the mean of the others, and torch, kernels and files for llama.cpp read the same model."""
    folder = spoken(family, tmp_path / "first", tiny_folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    mean = model.get_input_embeddings().weight.detach().mean(0)
    assert tokenizer.add_special_tokens(SPECIAL) == 2
    # Behind the mask and what else the checkpoint has.
    model.resize_token_embeddings(IDS + MORE, mean_resizing=True)
    rows = model.get_input_embeddings().weight.detach()[IDS:]
    torch.testing.assert_close(rows, mean.expand_as(rows), atol=0.01, rtol=0.01)
    tied = family == "dream-tied"
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    model.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    stored = load_file(tmp_path / "again" / "model.safetensors").values()
    assert sum(len(tensor) == IDS + MORE for tensor in stored) == (1 if tied else 2)
    text = "say <tool>"
    prompt = tokenizer(text)["input_ids"]
    assert prompt[-1] == tokenizer.convert_tokens_to_ids("<tool>")
    request = Request(prompt, SamplingConfig(max_new_tokens=8))
    answers = []
    for backend in ("torch", "kernels"):
        loaded = load_model(str(tmp_path / "again"), backend=backend, device="cpu", dtype="float32")
        assert loaded.tokenizer.convert_tokens_to_ids("<tool>") == prompt[-1]
        answers.append(loaded.engine().generate([request])[0].tokens)
    assert answers[0] == answers[1]
    file = open_gguf(convert(tmp_path / "again", tmp_path / "again.gguf", "F32"))
    assert file.vocabulary == IDS + MORE
    assert text_of(file).convert_tokens_to_ids("</tool>") == prompt[-1] + 1


# PEFT asks by transformers' old name.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.parametrize("more", [{}, {"trainable_token_indices": [IDS]}], ids=str)
def test_adapters_of_more_ids(more: dict[str, Any], tmp_path: Path, tiny_folder: Path) -> None:
    """They go with a base that was saved with these ids, and are refused with the one before."""
    model = DiffusionModelForCausalLM.from_pretrained(spoken("llada", tmp_path / "first", tiny_folder))
    model.resize_token_embeddings(IDS + MORE)
    model.save_pretrained(tmp_path / "base")
    said: dict[str, Any] = {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": False, **more}
    tuned: Any = get_peft_model(model, LoraConfig(**said))
    tuned.save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="resize_token_embeddings"):
        load_model(str(tmp_path / "adapter"), device="cpu")
    with pytest.raises(CheckpointError, match="resize_token_embeddings"):
        DiffusionModelForCausalLM.from_pretrained(tmp_path / "adapter")
    with pytest.raises(OptionError, match="resize first"):
        model.resize_token_embeddings(IDS)
    base = DiffusionModelForCausalLM.from_pretrained(tmp_path / "base")
    tuned = get_peft_model(base, LoraConfig(**said))
    tuned.save_pretrained(tmp_path / "adapter")
    found = DiffusionModelForCausalLM.from_pretrained(tmp_path / "adapter")
    ids = torch.arange(IDS - 4, IDS + MORE)[None]
    with torch.no_grad():
        assert torch.equal(found(ids).logits, tuned(input_ids=ids).logits)
    assert load_model(str(tmp_path / "adapter"), device="cpu").denoiser.spec.vocabulary == IDS + MORE


def test_sizes_of_a_multiple_and_of_none(tmp_path: Path, tiny_folder: Path) -> None:
    """As in transformers: no size changes nothing but what the multiple asks for."""
    model: Any = AutoModelForCausalLM.from_pretrained(spoken("dream", tmp_path / "first", tiny_folder))
    embedding = model.get_input_embeddings()
    assert model.resize_token_embeddings() is embedding
    assert model.resize_token_embeddings(pad_to_multiple_of=32).num_embeddings == 288
    assert model.resize_token_embeddings(IDS).num_embeddings == IDS
    with pytest.raises(OptionError, match="new_num_tokens=0"):
        model.resize_token_embeddings(0)
    with pytest.raises(CheckpointError, match=f"mask_token_id={IDS - 1}"):
        model.resize_token_embeddings(IDS - 1)
    assert model.get_input_embeddings().num_embeddings == model.checkpoint.vocabulary == IDS


def test_a_mask_token_where_there_is_none(tmp_path: Path, tiny_folder: Path) -> None:
    """Tokenizer and config are read back with it, and the model decodes and learns with it."""
    folder = spoken("open_dcoder", tmp_path / "first", tiny_folder, vocab_size=259)
    change(folder, mask_token_id=None)
    model = DiffusionModelForCausalLM.from_pretrained(folder, family="open_dcoder")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="mask_token_id=None"):
        model.generate(torch.tensor([[5, 6]]), max_new_tokens=4)
    number = add_mask_token(model, tokenizer)
    assert number == len(tokenizer) - 1 >= 259
    model.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    ids = torch.arange(6, 18)[None]
    model(ids, labels=ids).loss.backward()
    again = load_model(str(tmp_path / "again"), family="open_dcoder", device="cpu", dtype="float32")
    assert again.denoiser.spec.mask_id == again.tokenizer.mask_token_id == number
    request = Request([5, 6], SamplingConfig(max_new_tokens=8))
    model.train(mode=False)
    answer = model.generate(torch.tensor([[5, 6]]), max_new_tokens=8)[0, 2:].tolist()
    (finish,) = again.engine().generate([request])
    assert list(finish.tokens) == answer[: len(finish.tokens)]
    assert finish.tokens
    with pytest.raises(OptionError, match=f"a mask already, id {number}"):
        add_mask_token(model, tokenizer)


def test_families_without_a_mask_need_none(tmp_path: Path, tiny_folder: Path) -> None:
    """Noise of theirs is any token."""
    model = DiffusionModelForCausalLM.from_pretrained(copy_of("diffusion_gemma", tmp_path / "first", tiny_folder))
    with pytest.raises(OptionError, match="has no mask"):
        add_mask_token(model, AutoTokenizer.from_pretrained(tiny_folder))


def test_tri_mode_checkpoints_take_more_ids(checkpoint: Path, tmp_path: Path) -> None:
    """By transformers' own method; the denoiser's mask is no row of the embedding."""
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint)
    said: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
    expected = model.generate(torch.tensor([[5, 6, 7]]), **said)
    model.resize_token_embeddings(270, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[259:] = 0
    assert torch.equal(model.generate(torch.tensor([[5, 6, 7]]), **said), expected)
    model.save_pretrained(tmp_path / "again")
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert torch.equal(again.generate(torch.tensor([[5, 6, 7]]), **said), expected)
