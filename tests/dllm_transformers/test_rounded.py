"""Auto classes and `pipeline` with `weights=`: they decode as load_model does, and do nothing else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer
from transformers import pipeline

from dllm_kernels.compiled import library
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import OptionError

from ..gguf.checkpoints import make

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason="needs the compiled kernels")
PROMPT = [*range(40, 49)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SDAR whose rows hold whole blocks."""
    return make(tmp_path_factory.mktemp("rounded") / "sdar", "sdar")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    """In four bits."""
    return AutoModelForCausalLM.from_pretrained(folder, weights="Q4_0")


def said(model: Any, **options: Any) -> list[int]:
    """Its answer."""
    found = model.generate(torch.tensor([PROMPT]), max_new_tokens=8, **options)
    return list(found[0, len(PROMPT) :].tolist())


def test_it_says_what_load_model_says(folder: Path, model: Any) -> None:
    """Token for token, the second time, too; drawn text is the same for the same seed."""
    ours = load_model(str(folder), weights="Q4_0", dtype="float32", device="cpu")
    [finish] = ours.engine().generate([Request(PROMPT, SamplingConfig(max_new_tokens=8))])
    assert said(model) == list(finish.tokens)
    assert said(model) == list(finish.tokens)
    drawn = {"do_sample": True, "temperature": 0.7, "seed": 5}
    assert said(model, **drawn) == said(model, **drawn) != said(model)


def test_statistics_say_it(model: Any) -> None:
    """What was multiplied, under the name of what it is."""
    found = model.generate(torch.tensor([PROMPT]), max_new_tokens=8, return_dict_in_generate=True)
    assert found.usage[0]["weights"] == "Q4_0, Q8_0"


def test_a_pipeline_takes_it(tmp_path: Path, tiny_folder: Path) -> None:
    """By `model_kwargs`, as every option of `from_pretrained`."""
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "num_attention_heads": 4}
    place = make(tmp_path / "sdar", "sdar", **sizes, vocab_size=300, mask_token_id=299)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / name).write_bytes((tiny_folder / name).read_bytes())
    made: Any = pipeline("text-generation", model=str(place), model_kwargs={"weights": "Q8_0"})
    assert made.model.engine_model().denoiser.spec.weights == "Q8_0"
    assert isinstance(made("Hi", max_new_tokens=4)[0]["generated_text"], str)
    assert AutoTokenizer.from_pretrained(place) is not None


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda model, place: model(torch.tensor([PROMPT])), r"forward\(\) needs the weights"),
        (lambda model, place: model.save_pretrained(place), r"save_pretrained\(\) needs the weights"),
        (lambda model, place: model.train(), r"train\(\) needs the weights"),
        (lambda model, place: model.load_state_dict({}), r"load_state_dict\(\) needs"),
        (lambda model, place: model.resize_token_embeddings(400), r"resize_token_embeddings\(\) needs"),
        (lambda model, place: model.load_adapter(str(place)), r"load_adapter\(\) needs"),
        (lambda model, place: model.add_adapter(None), r"add_adapter\(\) needs"),
        (lambda model, place: model.to(torch.bfloat16), "casting the model to torch.bfloat16 on cpu needs the weights"),
    ],
)
def test_what_needs_weights_is_refused(model: Any, act: Any, words: str, tmp_path: Path) -> None:
    """With the way to have them; nothing is written, and the model goes on decoding."""
    before = said(model)
    with pytest.raises(OptionError, match=f"{words}.*weights='Q4_0'; load the model again without"):
        act(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert said(model) == before


def test_what_changes_nothing_is_done(model: Any) -> None:
    """Wrappers move and switch every model."""
    assert model.to("cpu").eval() is model
    assert model.device == torch.device("cpu")
    assert model.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": "Q2_K"}, "weights='Q2_K' is unknown; use 'auto' or 'int8' or 'Q4_0'"),
        ({"weights": 4}, "weights=4: give a text"),
        ({"weights": "Q4_0", "device_map": "cpu"}, "leave device_map='cpu' out"),
        ({"weights": "Q4_0", "attn_implementation": "eager"}, "leave attn_implementation='eager' out"),
        ({"load_in_4bit": True}, "give quantization_config=BitsAndBytesConfig.*, or weights='int8', 'Q4_0'"),
    ],
)
def test_what_excludes_it(folder: Path, options: dict[str, Any], words: str) -> None:
    """Named, with what works."""
    with pytest.raises(OptionError, match=words):
        AutoModelForCausalLM.from_pretrained(folder, **options)
