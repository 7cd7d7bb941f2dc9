"""Original checkpoints: written back in their format, changed, refused with a reason."""

import json
from contextlib import suppress
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file
from transformers import AutoConfig
from transformers import AutoModelForCausalLM
from transformers import AutoModelForSeq2SeqLM
from transformers import AutoModelForSequenceClassification
from transformers import AutoTokenizer
from transformers import GenerationConfig
from transformers import GenerationMixin
from transformers import LlamaConfig

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import OptionError
from dllm_plugins.files import replacing
from dllm_transformers import DiffusionModelForCausalLM
from dllm_transformers import PrefixCache
from dllm_transformers import saving

from ..engine.injecting import Injector
from ..golden.cases import FOLDERS
from .checkpoints import NEEDED
from .checkpoints import change
from .checkpoints import copy_of

#: What this version of transformers calls a prefix cache.
CACHE = "cache" if "cache" in signature(GenerationMixin.prepare_inputs_for_generation).parameters else "past_key_values"
PROMPT = torch.tensor([[7, 8, 9]])
GREEDY: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}


@pytest.mark.parametrize("name", FOLDERS)
def test_saved_in_the_original_format(name: str, tmp_path: Path, tiny_folder: Path) -> None:
    """The same config and the same tensors under the same names."""
    folder = copy_of(name, tmp_path / "first", tiny_folder)
    model: Any = DiffusionModelForCausalLM.from_pretrained(folder, **NEEDED.get(name, {}))
    model.save_pretrained(tmp_path / "second")
    saved = json.loads((tmp_path / "second" / "config.json").read_text())
    # What the config did not say, and the caller did.
    assert saved.pop("dllm_preset", None) == NEEDED.get(name, {}).get("preset")
    assert saved == json.loads((folder / "config.json").read_text())
    before, after = (load_file(tmp_path / place / "model.safetensors") for place in ("first", "second"))
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_trained_weights_and_another_dtype_are_saved(llada: Path, tmp_path: Path) -> None:
    """In shards if asked for; the saved folder answers as the model does."""
    model: Any = AutoModelForCausalLM.from_pretrained(llada, dtype="bfloat16")
    with torch.no_grad():
        model.get_input_embeddings().weight.neg_()
    model.save_pretrained(tmp_path / "out", max_shard_size="20KB")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert again.dtype == torch.bfloat16
    assert again.generation_config.eos_token_id == model.generation_config.eos_token_id
    assert again.generate(PROMPT, **GREEDY).tolist() == model.generate(PROMPT, **GREEDY).tolist()


def test_a_forward_can_be_trained(llada: Path) -> None:
    """Gradients reach the weights."""
    model: Any = AutoModelForCausalLM.from_pretrained(llada)
    model(PROMPT).logits.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"architectures": ["GPT5"]}, r"GPT5.*known families"),
        ({"model_type": "Dream", "architectures": ["DreamForCausalLM"]}, "DreamReasoner"),
        ({"alibi": True}, "alibi=True"),
        ({"n_layers": 1}, "does not account for"),
    ],
)
def test_unknown_and_refused_checkpoints(llada: Path, values: dict[str, Any], words: str) -> None:
    """The config loads, so that the tokenizer does; the model says what is wrong."""
    change(llada, **values)
    assert AutoConfig.from_pretrained(llada).to_dict() == json.loads((llada / "config.json").read_text())
    assert AutoTokenizer.from_pretrained(llada)("why?")["input_ids"]
    with pytest.raises(CheckpointError, match=words):
        AutoModelForCausalLM.from_pretrained(llada)


def test_model_types_collide(tmp_path: Path, tiny_folder: Path, llada: Path) -> None:
    """LLaDA-MoE calls itself `llada` too: the architecture decides."""
    moe: Any = AutoModelForCausalLM.from_pretrained(copy_of("llada_moe", tmp_path / "moe", tiny_folder))
    dense: Any = AutoModelForCausalLM.from_pretrained(llada)
    assert type(moe) is type(dense)
    assert (type(moe.native).__name__, type(dense.native).__name__) == ("Qwen3MoeForCausalLM", "LlamaForCausalLM")


def test_families_that_look_like_ordinary_models(llada: Path) -> None:
    """transformers loads them as what they say they are; our class loads them under their name."""
    change(llada, model_type="qwen2", architectures=["Qwen2ForCausalLM"])
    assert type(AutoConfig.from_pretrained(llada)).__name__ == "Qwen2Config"
    with pytest.raises(CheckpointError, match="family='open_dcoder'"):
        DiffusionModelForCausalLM.from_pretrained(llada)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "dream"}, "presets of llada: llada, fast_dllm"),
        ({"mask_id": 999}, "mask_id=999 is outside 0 to"),
        ({"family": "nonesuch"}, "unknown family 'nonesuch'"),
        ({"attn_implementation": "flash_attention_2"}, "flash_attention_2"),
        ({"dtype": "int8"}, "int8"),
        ({"use_cache": False}, "use_cache=False has no effect"),
        ({"output_attentions": True}, "output_attentions=True has no effect"),
        ({"output_hidden_states": True}, "output_hidden_states=True has no effect"),
        ({"return_dict": False}, "return_dict=False has no effect"),
    ],
)
def test_what_loading_refuses(llada: Path, options: dict[str, Any], words: str) -> None:
    """Options that do not fit, or that would change nothing."""
    with pytest.raises(DllmError, match=words):
        AutoModelForCausalLM.from_pretrained(llada, **options)


def test_what_else_is_refused(llada: Path, tmp_path: Path) -> None:
    """Random weights, and arguments of saving that would change nothing."""
    model: Any = AutoModelForCausalLM.from_pretrained(llada, attn_implementation="eager")
    assert model.native.config._attn_implementation == "eager"
    with pytest.raises(OptionError, match="from_pretrained"):
        AutoModelForCausalLM.from_config(model.config)
    with pytest.raises(OptionError, match="push_to_hub"):
        model.save_pretrained(tmp_path / "out", push_to_hub=True)
    with pytest.raises(OptionError, match="push_to_hub"):
        model.save_pretrained(tmp_path / "out", True, None, True)
    model.native.to("meta")
    with pytest.raises(CheckpointError, match="not in memory"):
        model.save_pretrained(tmp_path / "out")


def test_a_config_may_be_changed(llada: Path) -> None:
    """By the user's config object or by keyword; what the weights contradict is refused."""
    config: Any = AutoConfig.from_pretrained(llada)
    config.rope_theta = 20.0
    changed: Any = AutoModelForCausalLM.from_pretrained(llada, config=config)
    keyword: Any = AutoModelForCausalLM.from_pretrained(llada, rope_theta=20.0)
    plain: Any = AutoModelForCausalLM.from_pretrained(llada)
    with torch.inference_mode():
        assert torch.equal(changed(PROMPT).logits, keyword(PROMPT).logits)
        assert not torch.equal(changed(PROMPT).logits, plain(PROMPT).logits)
    with pytest.raises(CheckpointError, match="does not account for"):
        AutoModelForCausalLM.from_pretrained(llada, n_layers=1)


def test_mask_id_and_preset_reach_the_engine(llada: Path) -> None:
    """Said at loading, since no config of the family may say them."""
    model: Any = AutoModelForCausalLM.from_pretrained(llada, mask_id=201, preset="fast_dllm")
    assert model.spec.mask_id == 201
    assert model.spec.samplers["diffusion"] == "fast_dllm"
    plain: Any = AutoModelForCausalLM.from_pretrained(llada)
    assert plain.spec.mask_id == 236


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({CACHE: PrefixCache()}, "keeps no prefix"),
        ({"denoiser": "weights.safetensors"}, "denoiser"),
        ({"draft_length": 3}, "draft_length"),
        ({"num_beams": 2}, "num_beams"),
        ({"mode": "telepathy"}, "telepathy"),
        ({"block_length": 4, "preset_options": {"magic": 1}}, "magic"),
    ],
)
def test_what_generate_refuses(llada: Path, options: dict[str, Any], words: str) -> None:
    """Nothing is silently ignored."""
    model: Any = AutoModelForCausalLM.from_pretrained(llada)
    with pytest.raises(OptionError, match=words):
        model.generate(torch.tensor([[7, 8]]), **GREEDY, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"causal": True}, "causal"),
        ({"block_length": 4}, "block_length"),
        ({"decoder_input_ids": torch.tensor([[3]])}, "decoder_input_ids"),
    ],
)
def test_what_forward_refuses(llada: Path, options: dict[str, Any], words: str) -> None:
    """What would not change the logits of this family."""
    with pytest.raises(OptionError, match=words):
        AutoModelForCausalLM.from_pretrained(llada)(torch.tensor([[7, 8]]), **options)


def test_quantised_weights_are_saved_as_plain_ones(llada: Path, tmp_path: Path) -> None:
    """What is read from FP8 is written as it is in memory, and the config no longer says FP8; leftovers go."""
    tensors = load_file(llada / "model.safetensors")
    name = "model.transformer.blocks.0.q_proj.weight"
    expected = tensors[name].to(torch.float8_e4m3fn).float() * 0.5
    tensors |= {name: tensors[name].to(torch.float8_e4m3fn), f"{name}_scale": torch.tensor(0.5)}
    tensors["model.position_ids"] = torch.arange(8)
    save_file(tensors, llada / "model.safetensors")
    change(llada, quantization_config={"quant_method": "fp8"}, attn_implementation="flash_attention_2")
    model: Any = AutoModelForCausalLM.from_pretrained(llada, dtype=torch.float32)
    assert torch.equal(model.native.model.layers[0].self_attn.q_proj.weight, expected)
    model.save_pretrained(tmp_path / "out")
    saved = load_file(tmp_path / "out" / "model.safetensors")
    assert saved.keys() == tensors.keys() - {f"{name}_scale", "model.position_ids"}
    assert torch.equal(saved[name], expected)
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out", config=model.config)
    assert torch.equal(again.native.model.layers[0].self_attn.q_proj.weight, expected)


@pytest.mark.parametrize("value", [torch.bfloat16, "bfloat16"])
def test_the_old_name_of_the_dtype(llada: Path, tmp_path: Path, value: Any) -> None:
    """`torch_dtype`, as most scripts have it: by the Auto classes, the config, and back from disk."""
    model: Any = AutoModelForCausalLM.from_pretrained(llada, torch_dtype=value)
    assert model.dtype == torch.bfloat16
    model.save_pretrained(tmp_path / "out")
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out", torch_dtype="auto")
    assert again.dtype == torch.bfloat16
    assert AutoConfig.from_pretrained(llada, torch_dtype=value).dtype == torch.bfloat16


@pytest.mark.parametrize("value", [torch.tensor(5), Path("x"), {1}])
def test_a_value_that_no_config_holds(llada: Path, value: Any) -> None:
    """Under a key of the config it is refused by name."""
    with pytest.raises(OptionError, match="max_sequence_length="):
        AutoModelForCausalLM.from_pretrained(llada, max_sequence_length=value)


def test_a_preset_is_saved(llada: Path, tmp_path: Path) -> None:
    """What was said at loading is said by the files afterwards."""
    model: Any = AutoModelForCausalLM.from_pretrained(llada, preset="fast_dllm")
    model.save_pretrained(tmp_path / "out")
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert again.spec.samplers["diffusion"] == "fast_dllm"


def test_what_is_done_anyway_may_be_said(llada: Path) -> None:
    """What transformers would note in its config, at the value it has here."""
    usual: dict[str, Any] = {"use_cache": True, "output_attentions": False, "return_dict": True}
    assert AutoModelForCausalLM.from_pretrained(llada, **usual, output_hidden_states=None)
    with pytest.raises(OptionError, match="use_cache=False has no effect"):
        AutoConfig.from_pretrained(llada, use_cache=False)
    with pytest.raises(OptionError, match=r"load_model.*nothing\.gguf"):
        DiffusionModelForCausalLM.from_pretrained(llada, gguf_file="nothing.gguf")


def test_a_config_is_an_object_a_dict_or_a_path(llada: Path, tmp_path: Path) -> None:
    """All of them take the place of the folder's own; the config of another class is refused."""
    own = json.loads((llada / "config.json").read_text()) | {"rope_theta": 20.0}
    (tmp_path / "other.json").write_text(json.dumps(own))
    keyword: Any = AutoModelForCausalLM.from_pretrained(llada, rope_theta=20.0)
    for config in (own, tmp_path / "other.json", str(tmp_path / "other.json")):
        model: Any = DiffusionModelForCausalLM.from_pretrained(llada, config=config)
        with torch.inference_mode():
            assert torch.equal(model(PROMPT).logits, keyword(PROMPT).logits)
    with pytest.raises(OptionError, match="config= is a LlamaConfig"):
        DiffusionModelForCausalLM.from_pretrained(llada, config=LlamaConfig())


@pytest.mark.parametrize("auto", [AutoModelForSeq2SeqLM, AutoModelForSequenceClassification])
def test_auto_classes_of_other_tasks(llada: Path, auto: Any) -> None:
    """They say what there is, rather than all the configs that transformers knows."""
    with pytest.raises(OptionError, match="load it with AutoModelForCausalLM"):
        auto.from_pretrained(llada)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "size"), [("5GB", "20KB"), ("20KB", "20KB"), ("20KB", "5GB")])
def test_a_save_that_is_broken_off_leaves_what_was_there(llada: Path, tmp_path: Path, first: str, size: str) -> None:
    """Wherever it is, in one file or several: the folder answers as before, or as the new weights with their config."""
    old: Any = AutoModelForCausalLM.from_pretrained(llada)
    old.save_pretrained(tmp_path / "out", max_shard_size=first)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    model: Any = AutoModelForCausalLM.from_pretrained(llada, rope_theta=20.0)
    with torch.no_grad():
        model.get_output_embeddings().weight.neg_()
    before, after = (found.generate(PROMPT, **GREEDY).tolist() for found in (old, model))
    assert after != before
    place, files = 1, 0
    while True:
        with Injector(place, saving, replacing) as injector, suppress(KeyboardInterrupt):
            model.save_pretrained(tmp_path / "out", max_shard_size=size)
        with suppress(CheckpointError):
            # Refused where its config was read before the save was finished.
            AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        assert again.generate(PROMPT, **GREEDY).tolist() in (before, after), injector.where
        files = max(files, len([*tmp_path.rglob("*.part*")]))
        if not injector.raised:
            break
        place += 61
    assert again.generate(PROMPT, **GREEDY).tolist() == after
    assert files == 0
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert place > 90
    weights = [path.name for path in (tmp_path / "out").glob("*.safetensors")]
    assert (weights == ["model.safetensors"]) == (size == "5GB")


@pytest.mark.parametrize(("shipped", "ends"), [([5, 6], [5, 6]), (5, 5), (None, None), ("absent", 3)])
def test_ends_that_contradict_one_another(llada: Path, shipped: Any, ends: Any) -> None:
    """generation_config.json comes before config.json, as in transformers; the tokenizer's is not asked."""
    change(llada, eos_token_id=3)
    generation = {} if shipped == "absent" else {"eos_token_id": shipped}
    if generation:
        (llada / "generation_config.json").write_text(json.dumps(generation))
    model: Any = AutoModelForCausalLM.from_pretrained(llada)
    assert AutoTokenizer.from_pretrained(llada).eos_token_id not in (3, 5, 6)
    assert model.generation_config.eos_token_id == ends
    if generation:
        assert GenerationConfig.from_pretrained(llada).eos_token_id == ends
