"""A pair by its folder or its name in the Auto classes and `pipeline`: the tokens of `load_model(pair=...)`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel
from transformers import AutoModelForCausalLM
from transformers import AutoModelForMaskedLM
from transformers import AutoTokenizer
from transformers import pipeline

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.constraints.values import Regex
from dllm_plugins.errors import DllmError
from dllm_plugins.pairs import named
from dllm_transformers import PairForCausalLM
from dllm_transformers import export_pair

GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 14}
FLOAT: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def names(tiny_folder: Path, drafter_folder: Path, foreign_folder: Path) -> dict[str, dict[str, Any]]:
    """Pairs of one tokenizer and of two."""
    drafters = {"one": drafter_folder, "two": foreign_folder}
    return {name: {"ar": str(tiny_folder), "diffusion": str(place)} for name, place in drafters.items()}


@pytest.fixture(scope="module")
def folders(names: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("pairs")
    return {name: export_pair(place / name, pair) for name, pair in names.items()}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: AutoModelForCausalLM.from_pretrained(place, dtype="float32") for name, place in folders.items()}


@pytest.mark.parametrize("which", ["one", "two"])
def test_the_tokens_of_the_pair(
    names: dict[str, Any], folders: dict[str, Path], models: dict[str, Any], which: str
) -> None:
    """A batch of unequal prompts, greedy, drawn and held to a form, in every mode that deals in the target's ids."""
    tokenizer, model = AutoTokenizer.from_pretrained(folders[which], padding_side="left"), models[which]
    tokenizer.pad_token = "<unk>"
    inputs = tokenizer(["how are you?", "π ≈ 3"], return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    prompts = [tokenizer.encode(text) for text in ("how are you?", "π ≈ 3")]
    pair = load_model(pair=names[which], **FLOAT)
    plans = {"alternating": {"preset_options": {"plan": [["pair", 4], ["diffusion", 5]]}}}
    for mode in ("pair", "ar", "alternating", "auto", *(("diffusion",) if which == "one" else ())):
        for more in ({}, {"constraint": Regex("[a-c]{9}f")}, {"temperature": 0.7, "top_k": 50}):
            own = plans.get(mode, {})
            found = model.generate(
                **inputs, **{**GREEDY, "do_sample": "temperature" in more}, mode=mode, seed=3, tokenizer=tokenizer,
                **more, **own, return_dict_in_generate=True,
            )  # fmt: skip
            asked = [SamplingConfig(mode=mode, max_new_tokens=14, seed=3 + place, **more, **own) for place in range(2)]
            wanted = pair.engine().generate(list(map(Request, prompts, asked)))
            for row, finish in zip(found.sequences, wanted, strict=True):
                answer = row[inputs["input_ids"].shape[1] :].tolist()
                assert answer[: len(finish.tokens)] == list(finish.tokens), (mode, more)
            assert all(row["mode"] == mode or mode == "auto" for row in found.usage)


def test_by_name_and_in_a_pipeline(
    names: dict[str, Any], folders: dict[str, Path], models: dict[str, Any], own_pairs: None
) -> None:
    """By its folder alone, or loaded by the name that `llm dllm pair` gave it."""
    named.add("both", named.Pair.of(names["one"]))
    model = PairForCausalLM.from_pretrained("both", dtype=torch.float32)
    expected = load_model(pair=names["one"], **FLOAT)
    [finish] = expected.engine().generate(
        [expected.text_request("how are you?", SamplingConfig(mode="pair", max_new_tokens=14))]
    )
    speak: list[Callable[..., Any]] = [
        pipeline("text-generation", model=str(folders["one"]), dtype="float32"),
        pipeline("text-generation", model=model, tokenizer=model.tokenizer),
    ]
    for one in speak:
        assert one("how are you?", return_full_text=False, **GREEDY)[0]["generated_text"] == finish.text


def test_what_cannot_be(
    models: dict[str, Any], folders: dict[str, Path], names: dict[str, Any], own_pairs: None
) -> None:
    """Each refusal says what would do."""
    model, prompt = models["two"], torch.tensor([[3, 4, 5]])
    cases: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
        (model.save_pretrained, ("x",), {}, r"save_pretrained\('x'\): a pair is named, not saved: .*export_pair"),
        (model.push_to_hub, ("x",), {}, "a pair is named, not saved"),
        (model.train, (), {}, "train its models one by one"),
        (model, (prompt,), {}, "train its models one by one"),
        (model.generate, (prompt,), {**GREEDY, "mode": "diffusion"}, "mode='diffusion' answers in ids of .*load_model"),
        (model.generate, (prompt,), {"assistant_model": models["one"]}, "no use to a pair"),
        (AutoModelForMaskedLM.from_pretrained, (folders["one"],), {}, "load it with AutoModelForCausalLM"),
        (AutoModel.from_pretrained, (folders["one"],), {}, "load it with AutoModelForCausalLM"),
        (AutoModelForCausalLM.from_config, (model.config,), {}, "no random weights"),
        (PairForCausalLM.from_pretrained, ("none",), {}, "'none' is no pair: .*llm dllm pair none"),
        (PairForCausalLM.from_pretrained, (folders["one"],), {"attn_implementation": "eager"}, "is for one model"),
        (PairForCausalLM.from_pretrained, (folders["one"],), {"dtype": "int7"}, "dtype='int7' is unknown"),
        (PairForCausalLM.from_pretrained, (folders["one"],), {"device_map": {"": 0}}, "device_map=.* in ar_options"),
        (export_pair, ("x", {"ar": "dllm"}), {}, "diffusion=None"),
        (export_pair, ("x", 7), {}, "pair=7: give the name of a pair"),
    ]
    for call, given, options, error in cases:
        with pytest.raises(DllmError, match=error):
            call(*given, **options)
    assert not Path("x").exists()
