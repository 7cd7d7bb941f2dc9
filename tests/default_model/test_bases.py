"""Any Llama, Qwen2 or Qwen3 folder is a base: with a denoiser it says what it says alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from llm.cli import cli
from transformers import AutoModelForCausalLM

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.denoisers.rope import Rope
from dllm_plugins.denoisers.weights import load_llama
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_transformers import block_diffusion
from dllm_transformers import export
from langchain_dllm import ChatDLLM

from .bases import BASES
from .bases import make_base
from .bases import make_denoiser

PROMPT = [1, 40, 50, 60, 70]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Base and denoiser by kind."""
    root = tmp_path_factory.mktemp("bases")
    found = {}
    for kind in BASES:
        base = make_base(root / kind.replace(" ", "-"), kind)
        found[kind] = base, make_denoiser(base.with_suffix(".safetensors"), base)
    return found


@pytest.mark.parametrize("backend", ["kernels", "torch"])
@pytest.mark.parametrize("kind", BASES)
def test_every_mode_of_every_base(places: dict[str, tuple[Path, Path]], kind: str, backend: str) -> None:
    """Mode `ar` is transformers' greedy answer; `speculative` is `ar`, greedy and sampled; `diffusion` answers."""
    base, denoiser = places[kind]
    model = load_model(base=base, denoiser=denoiser, dtype="float32", device="cpu", backend=backend)

    def answer(**options: Any) -> list[int]:
        config = SamplingConfig(max_new_tokens=24, **options)
        return list(model.engine().generate([Request(PROMPT, config, frozenset())])[0].tokens)

    theirs = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
    expected = theirs.generate(
        torch.tensor([PROMPT]), max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert answer(mode="ar") == expected[0, len(PROMPT) :].tolist()
    for options in ({}, {"temperature": 1.0, "seed": 4}):
        assert answer(mode="speculative", **options) == answer(mode="ar", **options)
    assert len(answer(mode="diffusion")) == 24


@pytest.mark.parametrize("kind", BASES)
def test_the_same_through_transformers(places: dict[str, tuple[Path, Path]], kind: str) -> None:
    """A base that transformers has loaded takes the denoiser as an option of the strategy."""
    base, denoiser = places[kind]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
    prompt = torch.tensor([PROMPT])
    found = model.generate(
        prompt, custom_generate=block_diffusion, denoiser=denoiser, max_new_tokens=12, eos_token_id=None, pad_token_id=0
    )
    expected = model.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("kind", [kind for kind in BASES if kind != "llama"])
def test_what_llama_cpp_does_not_compute(places: dict[str, tuple[Path, Path]], kind: str) -> None:
    """Refused before a file is made."""
    base, denoiser = places[kind]
    with pytest.raises(OptionError, match=r"backend='llama_cpp' computes plain Llamas .* leave it out"):
        load_model(base=base, denoiser=denoiser, backend="llama_cpp")


def test_the_same_in_the_hosts(
    places: dict[str, tuple[Path, Path]], llm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LangChain's arguments and llm's environment lead to one model."""
    base, denoiser = places["qwen2"]
    model = load_model(base=base, denoiser=denoiser, dtype="float32", device="cpu")
    prompt = model.encode_chat([{"role": "user", "content": "hi"}])
    expected = model.engine().generate([Request(prompt, SamplingConfig(max_new_tokens=6))])[0].text
    chat = ChatDLLM(base=str(base), denoiser=str(denoiser), dtype="float32", max_tokens=6)
    assert chat.invoke("hi").content == expected
    for name, value in (("BASE", str(base)), ("DENOISER", str(denoiser)), ("DTYPE", "float32")):
        monkeypatch.setenv(f"DLLM_{name}", value)
    done = CliRunner().invoke(cli, ["-m", "dllm", "hi", "-o", "max_tokens", "6", "--no-stream", "--no-log"])
    assert done.output.strip() == expected.strip()


def test_an_untied_head_and_bfloat16(places: dict[str, tuple[Path, Path]]) -> None:
    """Two matrices stay two, whatever dtype they are read in."""
    for kind, (base, _) in places.items():
        weights = load_llama(base, torch.bfloat16)
        assert weights.tied is BASES[kind].get("tie_word_embeddings", False)


def test_stop_ids_of_the_generation_config(places: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    """They come first, as in transformers: an instruct model ends its turns with another token than its texts."""
    base = make_base(tmp_path / "base", "qwen2")
    denoiser = places["qwen2"][1]
    assert load_model(base=base, denoiser=denoiser, device="cpu").denoiser.spec.stop_ids == {2}
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 258]}))
    assert load_model(base=base, denoiser=denoiser, device="cpu").denoiser.spec.stop_ids == {2, 258}
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": 259}))
    with pytest.raises(CheckpointError, match=r"generation_config.json says eos_token_id=259"):
        load_model(base=base, denoiser=denoiser, device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gemma"}, "model_type='gemma'"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window=True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types='sliding_attention'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "rope_type='yarn'"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 0}}, "rope factor=0"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ({"tie_word_embeddings": False}, "lm_head"),
    ],
    ids=str,
)
def test_what_no_base_is(
    places: dict[str, tuple[Path, Path]], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """Refused with the key that says so."""
    base = make_base(tmp_path / "base", "qwen2")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=message):
        load_model(base=base, denoiser=places["qwen2"][1], device="cpu")


def test_factors_that_cross_are_refused() -> None:
    """Between the slow and the fast pairs of a Llama 3 something must be left."""
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}
    with pytest.raises(CheckpointError, match="low_freq_factor=4"):
        Rope.from_config({**rope, "original_max_position_embeddings": 32}, "here", "mend it")


def test_one_checkpoint_is_made_of_a_llama(places: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    """An untied head is kept; of others the way that remains is named."""
    base, denoiser = places["llama untied"]
    made = AutoModelForCausalLM.from_pretrained(
        export(tmp_path / "made", base, denoiser, "float32"), trust_remote_code=False
    )
    theirs = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
    prompt = torch.tensor([PROMPT])
    assert torch.equal(made(prompt).logits, theirs(prompt).logits)
    with pytest.raises(OptionError, match=r"is a qwen2, .* load_model"):
        export(tmp_path / "other", *places["qwen2"])
