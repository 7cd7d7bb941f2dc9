"""What a user asked for is honoured or refused; what a host or a checkpoint fills in is neither."""

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers import GenerationConfig
from transformers import LogitsProcessorList
from transformers import RepetitionPenaltyLogitsProcessor
from transformers import pipeline

from dllm_plugins import DllmError
from dllm_transformers import DiffusionModelForCausalLM
from dllm_transformers.asked import option_names
from dllm_transformers.options import HONOURED

from ..modes.tiny_gemma import save_gemma

#: transformers types its overloads too narrowly for models of registered classes.
text_generation: Any = pipeline
PROMPT = torch.tensor([[7, 8, 9]])
FEW: dict[str, Any] = {"max_new_tokens": 8, "seed": 3}
#: What asks for something, where a number above 1 would not do.
VALUES: dict[str, Any] = {
    **dict.fromkeys(("use_mtp", "renormalize_logits", "remove_invalid_values", "token_healing", "is_assistant"), True),
    **dict.fromkeys(("output_attentions", "output_hidden_states", "early_stopping", "low_memory"), True),
    **dict.fromkeys(("min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"), 0.5),
    "use_cache": False,
    "cache_implementation": "offloaded",
    "cache_config": {"backend": "quanto"},
    "bad_words_ids": [[3]],
    "exponential_decay_length_penalty": (2, 1.5),
    "suppress_tokens": [3],
    "begin_suppress_tokens": [3],
    "sequence_bias": {(3,): 1.0},
    "watermarking_config": {"bias": 2.0},
    "num_assistant_tokens_schedule": "heuristic",
    "speculation_type": "prompt_lookup",
    "compile_config": {},
    "continuous_batching_config": {},
    "dola_layers": "high",
    "constraints": [],
    "force_words_ids": [[3]],
}


@pytest.fixture
def model(llada: Path) -> Any:
    """A tiny LLaDA."""
    return DiffusionModelForCausalLM.from_pretrained(llada)


#: Of the fields that transformers makes processors of, those that mean something on a canvas.
ON_A_CANVAS = {"repetition_penalty", "bad_words_ids", "min_new_tokens"}


@pytest.mark.parametrize("name", sorted(option_names() - HONOURED - ON_A_CANVAS))
def test_every_other_option_is_refused_by_name(model: Any, name: str) -> None:
    """As an argument, in a config handed in, and on the model's own."""
    value = VALUES.get(name, 3)
    with pytest.raises(DllmError, match=name):
        model.generate(PROMPT, **FEW, **{name: value})
    config = GenerationConfig()
    setattr(config, name, value)
    with pytest.raises(DllmError, match=name):
        model.generate(PROMPT, generation_config=config, **FEW)
    setattr(model.generation_config, name, value)
    with pytest.raises(DllmError, match=name):
        model.generate(PROMPT, **FEW)


def test_processors_handed_in_are_refused(model: Any) -> None:
    """They are the user's, whatever else is filled in."""
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.3)])
    with pytest.raises(DllmError, match="RepetitionPenaltyLogitsProcessor"):
        model.generate(PROMPT, logits_processor=processors, **FEW)
    with pytest.raises(DllmError, match="RepetitionPenaltyLogitsProcessor"):
        model.generate(PROMPT, None, processors, **FEW)


def test_what_a_checkpoint_ships(llada: Path, model: Any) -> None:
    """Its generation_config.json may hold what nothing here has a use for."""
    plain = model.generate(PROMPT, **FEW).tolist()
    shipped = {"repetition_penalty": 1.5, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "use_cache": False}
    shipped |= {"no_repeat_ngram_size": 2, "min_new_tokens": 3, "output_hidden_states": True, "num_beams": 2}
    (llada / "generation_config.json").write_text(json.dumps(shipped))
    other = DiffusionModelForCausalLM.from_pretrained(llada)
    assert other.generate(PROMPT, **FEW).tolist() == plain
    # As `transformers serve` does.
    assert other.generate(PROMPT, generation_config=copy.deepcopy(other.generation_config), **FEW).tolist() == plain
    (llada / "generation_config.json").write_text(json.dumps({**shipped, "temperature": 5.0, "do_sample": True}))
    other = DiffusionModelForCausalLM.from_pretrained(llada)
    sampled = model.generate(PROMPT, do_sample=True, temperature=5.0, top_k=20, top_p=0.8, **FEW).tolist()
    assert other.generate(PROMPT, **FEW).tolist() == sampled != plain
    assert other.generate(PROMPT, repetition_penalty=50.0, **FEW).tolist() != plain


def test_a_plain_base_models_own_config(tiny_folder: Path, strategy: partial[Any], tmp_path: Path) -> None:
    """For the strategy on a class of transformers' own, too: shipped values are not the user's, changed ones are."""
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shipped = {"repetition_penalty": 1.5, "temperature": 0.7}
    (tmp_path / "generation_config.json").write_text(json.dumps(shipped))
    own = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    options = {**FEW, "custom_generate": strategy}
    greedy = own.generate(PROMPT, do_sample=False, **options).tolist()
    assert own.generate(PROMPT, **options).tolist() == greedy
    sampled = own.generate(PROMPT, do_sample=True, temperature=5.0, **options).tolist()
    own.generation_config.temperature = 5.0
    assert own.generate(PROMPT, **options).tolist() == sampled != greedy
    own.generation_config.typical_p = 0.2
    with pytest.raises(DllmError, match=r"typical_p=0\.2"):
        own.generate(PROMPT, **options)


def test_asking_for_a_temperature_is_asking_for_sampling(model: Any) -> None:
    """As an argument, in a config, on the model's own; beside do_sample=False it is refused, unless it says nothing."""
    sampled = model.generate(PROMPT, do_sample=True, temperature=5.0, **FEW).tolist()
    greedy = model.generate(PROMPT, do_sample=False, **FEW).tolist()
    assert sampled != greedy == model.generate(PROMPT, **FEW).tolist()
    assert model.generate(PROMPT, temperature=5.0, **FEW).tolist() == sampled
    assert model.generate(PROMPT, generation_config=GenerationConfig(temperature=5.0), **FEW).tolist() == sampled
    assert model.generate(PROMPT, top_k=50, **FEW).tolist() == model.generate(PROMPT, do_sample=True, **FEW).tolist()
    assert model.generate(PROMPT, temperature=0, **FEW).tolist() == greedy
    assert model.generate(PROMPT, do_sample=False, temperature=1.0, top_k=50, top_p=1.0, **FEW).tolist() == greedy
    with pytest.raises(DllmError, match=r"temperature=0\.9 has no effect beside do_sample=False"):
        model.generate(PROMPT, do_sample=False, temperature=0.9, **FEW)
    model.generation_config.temperature = 5.0
    assert model.generate(PROMPT, **FEW).tolist() == sampled


def test_what_a_pipeline_fills_in(model: Any, tokenizer: Any) -> None:
    """Its temperature is none of the user's; his own is, whether given to the pipeline or to a call."""
    made = partial(text_generation, "text-generation", model=model, tokenizer=tokenizer)
    greedy = made()("hi", do_sample=False, **FEW)
    assert made()("hi", temperature=0, **FEW) == greedy
    assert made(do_sample=False)("hi", **FEW) == greedy
    hot = made()("hi", temperature=5.0, **FEW)
    assert hot == made(temperature=5.0)("hi", **FEW) != greedy
    with pytest.raises(DllmError, match=r"temperature=0\.9"):
        made()("hi", temperature=0.9, do_sample=False, **FEW)
    assert made(do_sample=False, repetition_penalty=50.0)("hi", **FEW) != greedy
    with pytest.raises(DllmError, match=r"min_p=0\.2"):
        made(min_p=0.2)("hi", **FEW)


@pytest.mark.slow
def test_a_sampler_with_temperatures_of_its_own(tmp_path: Path, tokenizer: Any) -> None:
    """DiffusionGemma takes what a pipeline is given, and leaves the temperature that it fills in."""
    save_gemma(tmp_path)
    gemma = DiffusionModelForCausalLM.from_pretrained(tmp_path)
    generator = text_generation("text-generation", model=gemma, tokenizer=tokenizer)
    for own in ({}, {"do_sample": True}, {"do_sample": False}):
        assert generator("01", **FEW, preset_options={"t_max": 0.9}, **own) == generator(
            "01", do_sample=False, **FEW, preset_options={"t_max": 0.9}
        )
    with pytest.raises(DllmError, match=r"temperature=0\.7 has no effect on DiffusionGemma"):
        generator("01", temperature=0.7, **FEW)
