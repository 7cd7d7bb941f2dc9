"""`constraint=` of the strategy, of checkpoints' own `generate` and of pipelines."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerBase
from transformers import pipeline

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_transformers import JsonSchema
from dllm_transformers import Regex

#: transformers types its overloads too narrowly for models of registered classes.
text_generation: Any = pipeline
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["age"],
}
PET = JsonSchema(SCHEMA)
ROOM: dict[str, Any] = {"max_new_tokens": 30, "do_sample": False}
PROMPTS = torch.tensor([[7, 8, 9], [20, 21, 22]])


def texts(found: Any, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The answers behind prompts of three tokens."""
    return [str(tokenizer.decode(row[3:], skip_special_tokens=True)).replace("<unk>", "") for row in found]


def test_the_strategy_holds_a_batch_to_it(
    model: Any, strategy: partial[Any], tokenizer: PreTrainedTokenizerBase, tiny_folder: Path
) -> None:
    found = model.generate(PROMPTS, custom_generate=strategy, constraint=PET, tokenizer=tokenizer, **ROOM)
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    engine = load_model("dllm", base=tiny_folder, denoiser=denoiser, dtype="float32", device="cpu").engine()
    config = SamplingConfig(max_new_tokens=30, constraint=PET)
    ends = frozenset({model.generation_config.eos_token_id})
    own = engine.generate([Request(row, config, stop_ids=ends) for row in PROMPTS.tolist()])
    for text, finish in zip(texts(found, tokenizer), own, strict=True):
        assert text == finish.text
        assert 0 <= json.loads(text)["age"] <= 99


@pytest.mark.parametrize("mode", ["ar", "diffusion", "speculative"])
def test_every_mode_answers_by_a_regular_expression(
    model: Any, strategy: partial[Any], tokenizer: PreTrainedTokenizerBase, mode: str
) -> None:
    options: dict[str, Any] = {"constraint": Regex("(yes|no)!"), "tokenizer": tokenizer, "mode": mode}
    found = model.generate(PROMPTS, custom_generate=strategy, **options, **ROOM)
    assert {*texts(found, tokenizer)} <= {"yes!", "no!"}


def test_a_checkpoint_and_its_pipeline_do_as_well(llada: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(llada)
    tokenizer.pad_token = "<unk>"
    model: Any = AutoModelForCausalLM.from_pretrained(llada)
    options: dict[str, Any] = {"constraint": PET, "steps": 8}
    [text] = texts(model.generate(PROMPTS[:1], tokenizer=tokenizer, **options, **ROOM), tokenizer)
    # Its end of text is no special token of the tiny tokenizer, and stands behind the answer.
    read = json.JSONDecoder().raw_decode
    assert read(text)[0].keys() == {"age"}
    generator = text_generation("text-generation", model=model, tokenizer=tokenizer)
    for asked in ("why?", [{"role": "user", "content": "why?"}]):
        [shown] = generator(asked, return_full_text=False, **options, **ROOM)
        answer = shown["generated_text"]
        assert read(answer)[0].keys() == {"age"}
        assert len(answer) == read(answer)[1] + 1


def test_what_it_needs_is_asked_for(model: Any, strategy: partial[Any], tokenizer: PreTrainedTokenizerBase) -> None:
    ask = partial(model.generate, PROMPTS, custom_generate=strategy, **ROOM)
    with pytest.raises(OptionError, match=r"constraint=.* needs the model's tokenizer; pass tokenizer=tokenizer"):
        ask(constraint=PET)
    with pytest.raises(OptionError, match="give a Regex, a JsonSchema or a Grammar"):
        ask(constraint="yes|no", tokenizer=tokenizer)
    with pytest.raises(OptionError, match="'not' at #"):
        ask(constraint=JsonSchema({"not": {}}), tokenizer=tokenizer)
    with pytest.raises(RequestError, match="raise max_new_tokens"):
        ask(constraint=Regex("x{40}"), tokenizer=tokenizer)


def test_a_batch_of_which_each_must_be_something_else(
    model: Any, strategy: partial[Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Row by row as alone; also where several answer one prompt, and where the generation config says it."""
    ask = partial(model.generate, PROMPTS, custom_generate=strategy, tokenizer=tokenizer, **ROOM)
    yes, no = Regex("yes!"), Regex("n(o|a)!")
    assert texts(ask(constraint=[yes, no]), tokenizer)[0] == "yes!"
    assert texts(ask(constraint=[yes, no]), tokenizer)[1] in {"no!", "na!"}
    [first, free] = ask(constraint=[yes, None])
    assert texts([first], tokenizer) == ["yes!"]
    assert free.equal(ask()[1])
    sampled = {"do_sample": True, "num_return_sequences": 2, "constraint": [yes, no]}
    assert [text[0] for text in texts(ask(**sampled), tokenizer)] == ["y", "y", "n", "n"]
    with pytest.raises(OptionError, match=r"constraint is a list of 3, and there are 2 prompts; give one constraint"):
        ask(constraint=[yes, no, None])
    with pytest.raises(OptionError, match=r"or a list of one for each prompt"):
        ask(constraint=[yes, "no"])
    with pytest.raises(OptionError, match=r"constraint has 2 entries for a prompt with 0 gaps"):
        ask(constraint=[[yes, no], no])
