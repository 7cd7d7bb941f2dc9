"""Pairs in transformers: `assistant_model=` beside a model of transformers' own, and beside classes of ours."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer
from transformers import pipeline

from dllm_plugins.constraints.values import Regex
from dllm_plugins.errors import DllmError
from dllm_transformers import block_diffusion
from dllm_transformers import export

GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 14, "pad_token_id": 0}


@pytest.fixture(scope="module")
def target(tiny_folder: Path) -> Any:
    """The tiny base, an ordinary Llama."""
    return AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def drafters(drafter_folder: Path, foreign_folder: Path) -> dict[str, Any]:
    """Diffusion models with the target's tokens, and with tokens of their own."""
    folders = {"one": drafter_folder, "two": foreign_folder}
    return {name: AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32) for name, place in folders.items()}


@pytest.fixture(scope="module")
def tokenizers(tiny_folder: Path, drafter_folder: Path, foreign_folder: Path) -> dict[str, Any]:
    folders = {"target": tiny_folder, "one": drafter_folder, "two": foreign_folder}
    found = {name: AutoTokenizer.from_pretrained(place, padding_side="left") for name, place in folders.items()}
    found["target"].pad_token = "<unk>"
    return found


@pytest.fixture
def pair(request: pytest.FixtureRequest, drafters: dict[str, Any], tokenizers: dict[str, Any]) -> dict[str, Any]:
    """Arguments of generate() for one tokenizer or two."""
    return {
        "assistant_model": drafters[request.param],
        "tokenizer": tokenizers["target"],
        "assistant_tokenizer": tokenizers[request.param],
    }


@pytest.mark.parametrize("pair", ["one", "two"], indirect=True)
def test_the_text_is_the_targets_own(target: Any, tokenizers: dict[str, Any], pair: dict[str, Any]) -> None:
    """A batch of unequal prompts: greedy as transformers decodes it, drawn as mode `ar` does."""
    inputs = tokenizers["target"](["how are you?", "the sky is", "π ≈ 3"], return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    expected = target.generate(**inputs, **GREEDY)
    found = target.generate(
        **inputs, **GREEDY, custom_generate=block_diffusion, **pair, stats=True, return_dict_in_generate=True
    )
    assert found.sequences.tolist() == expected.tolist()
    assert all(usage["passes"]["draft"] > 0 for usage in found.usage)
    drawn = [
        target.generate(
            **inputs, **GREEDY | {"do_sample": True}, custom_generate=block_diffusion, mode=mode, seed=3, **pair
        ).tolist()
        for mode in ("ar", "pair")
    ]
    assert drawn[0] == drawn[1] != expected.tolist()
    held = [
        target.generate(
            **inputs, **GREEDY, custom_generate=block_diffusion, mode=mode, constraint=Regex("[a-c]{7}f"), **pair
        ).tolist()
        for mode in ("ar", "pair")
    ]
    assert held[0] == held[1]


def test_classes_of_ours_and_pipelines(
    tiny_folder: Path, drafter_folder: Path, tokenizers: dict[str, Any], tmp_path: Path
) -> None:
    """A tri-mode model needs no `custom_generate`; a pipeline takes a drafter that is loaded."""
    made = export(tmp_path / "model", tiny_folder, tiny_folder.parent / "denoiser.safetensors", "float32")
    model, own = AutoModelForCausalLM.from_pretrained(made), tokenizers["target"]
    drafter = AutoModelForCausalLM.from_pretrained(drafter_folder, dtype=torch.float32)
    both = {"tokenizer": own, "assistant_model": drafter, "assistant_tokenizer": tokenizers["one"]}
    inputs = own("how are you?", return_tensors="pt")
    inputs.pop("token_type_ids", None)
    plain = model.generate(**inputs, **GREEDY, mode="ar")
    found = model.generate(**inputs, **GREEDY, **both, return_dict_in_generate=True)
    assert found.sequences.tolist() == plain.tolist()
    assert found.usage[0]["passes"]["draft"] > 0
    speak = pipeline(
        "text-generation",
        model=model,
        tokenizer=own,
        assistant_model=drafter,
        assistant_tokenizer=tokenizers["one"],
    )
    said = speak("how are you?", **GREEDY, return_full_text=False)[0]["generated_text"]
    assert said == own.decode(plain[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_what_does_not_fit(target: Any, drafters: dict[str, Any], tokenizers: dict[str, Any]) -> None:
    """Each refusal says what would do."""
    prompt, ours = torch.tensor([[3, 4, 5]]), {"custom_generate": block_diffusion}
    drafter, own = {"assistant_model": drafters["one"]}, {"assistant_tokenizer": tokenizers["one"]}
    both = {**drafter, **own, "tokenizer": tokenizers["target"]}
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (target, {**ours, **drafter}, "token ids, and the model .*give the tokenizers of both"),
        (target, {**ours, **drafter, **own}, "tokenizer=None is no tokenizer"),
        (target, {**ours, **own}, "assistant_tokenizer is of no use without assistant_model"),
        (target, {**ours, "assistant_model": target}, "is no diffusion model, whose drafts this verifies"),
        (
            target,
            {**drafter, **own, "tokenizer": tokenizers["target"]},
            "add custom_generate=dllm_transformers.block_diffusion",
        ),
        (drafters["one"], drafter, "cannot verify drafts: it decodes in mode 'diffusion'"),
    ]
    for model, options, error in cases:
        with pytest.raises(DllmError, match=error):
            model.generate(prompt, **GREEDY, **options)
    with pytest.raises(DllmError, match="denoiser='x' is of no use beside assistant_model"):
        target.generate(prompt, **GREEDY, **ours, **drafter, denoiser="x")
    with pytest.raises(DllmError, match=r"unknown mode 'speculative'; modes of .*: pair, ar"):
        target.generate(prompt, **GREEDY, **ours, **both, mode="speculative")
