"""Original checkpoints through the Auto classes: logits of the reference, answers of the engine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING
from transformers import AutoConfig
from transformers import AutoModel
from transformers import AutoModelForCausalLM
from transformers import AutoModelForMaskedLM

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layouts import LAYOUTS
from dllm_transformers import DiffusionConfig
from dllm_transformers import DiffusionModelForCausalLM
from dllm_transformers.registering import own_model_types
from dllm_transformers.visibility import BOTH_WAYS
from dllm_transformers.visibility import LEFTWARDS

from ..golden.cases import FOLDERS
from .checkpoints import NEEDED
from .checkpoints import Case
from .checkpoints import copy_of

GREEDY: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
PROMPTS = [[7, 8, 9], [20, 21, 22, 23, 24, 25, 26], [11]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Callable[[str], Path]:
    """The folder of a case, made once."""
    made: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = copy_of(name, tmp_path_factory.mktemp("hub") / name, tiny_folder)
        return made[name]

    return find


def load(name: str, folder: Path, **options: Any) -> Any:
    """As users would: by the Auto class where the model type is the family's own."""
    own = json.loads((folder / "config.json").read_text())["model_type"] in own_model_types()
    kind: Any = AutoModelForCausalLM if own else DiffusionModelForCausalLM
    return kind.from_pretrained(folder, **{**NEEDED.get(name, {}), **options})


@pytest.mark.parametrize("name", FOLDERS)
def test_logits_of_the_reference(name: str, folder: Callable[[str], Path]) -> None:
    """Within 1e-4 at every real position; padding and positions as recorded."""
    case, model = Case(name, FOLDERS[name]), load(name, folder(name))
    golden = case.logits
    keys = sorted(key.removesuffix(".logits") for key in golden if key.endswith(".logits"))
    assert len(keys) >= 3
    for key in keys:
        options: dict[str, Any] = {
            option: golden[f"{key}.{option}"]
            for option in ("attention_mask", "position_ids", "decoder_input_ids")
            if f"{key}.{option}" in golden
        }
        if case.about.get("logits_block_size"):
            options["block_length"] = case.about["logits_block_size"]
        if (case.about.get("logits_modes") or {}).get(key) == "causal":
            options["causal"] = True
        with torch.inference_mode():
            found = model(golden[f"{key}.input_ids"], **options).logits
        real = golden.get(f"{key}.attention_mask", torch.ones(found.shape[:2])).bool()
        assert float((found - golden[f"{key}.logits"])[real].abs().max()) <= 1e-4, key


@pytest.mark.parametrize("name", FOLDERS)
def test_generate_is_the_engine(name: str, folder: Callable[[str], Path]) -> None:
    """The same tokens and passes as `load_model` of the same folder, for a padded batch of unequal prompts."""
    place, needed = folder(name), dict(NEEDED.get(name, {}))
    layout = load(name, place).checkpoint.layout
    if "diffusion" not in layout.modes:
        needed.setdefault("preset", layout.samplers[0])
    model = load(name, place, **needed)
    engine = load_model(str(place), dtype="float32", device="cpu", **needed).engine()
    seeds, more = (5, 6, 7), {}
    if "expand_id" in Case(name, FOLDERS[name]).about:
        more = {"preset_options": {"expand_token_id": Case(name, FOLDERS[name]).about["expand_id"]}}
    done = [
        engine.generate([Request(prompt, SamplingConfig(max_new_tokens=12, seed=seed, **more))])[0]
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    ids = torch.tensor([[0] * (7 - len(prompt)) + prompt for prompt in PROMPTS])
    mask = torch.tensor([[0] * (7 - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    ours = model.generate(ids, attention_mask=mask, seed=5, return_dict_in_generate=True, **more, **GREEDY)
    assert ours.sequences[:, :7].tolist() == ids.tolist()
    pad = model.generation_config.pad_token_id
    for row, finish in enumerate(done):
        expected = [*finish.tokens, *([] if finish.stop_token is None else [finish.stop_token])]
        answer = ours.sequences[row, 7:].tolist()
        assert answer == expected + [pad] * (len(answer) - len(expected))
        assert ours.usage[row]["passes"] == finish.usage.passes
        assert ours.finish_reasons[row] == finish.reason


@pytest.mark.parametrize("name", ["llada_dense", "sdar"])
def test_left_padding_changes_nothing(name: str, folder: Callable[[str], Path]) -> None:
    """A padded row's logits are those of the row alone, blocks counted from its first real token."""
    model = load(name, folder(name))
    ids = torch.tensor([[0, 0, 0, 7, 8, 9, 10], [20, 21, 22, 23, 24, 25, 26]])
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])
    with torch.inference_mode():
        both = model(ids, attention_mask=mask).logits
        torch.testing.assert_close(both[:1, 3:], model(ids[:1, 3:]).logits, rtol=0, atol=2e-5)
        torch.testing.assert_close(both[1:], model(ids[1:]).logits, rtol=0, atol=2e-5)
        assert not torch.allclose(model(ids).logits[0, 3:], both[0, 3:], atol=1e-3)


def test_every_auto_class_and_no_remote_code(folder: Callable[[str], Path]) -> None:
    """config.json names code for all of them; none is asked for, trusted or not."""
    place = folder("llada_dense")
    for auto in (AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM):
        for options in ({}, {"trust_remote_code": False}, {"trust_remote_code": True}):
            made: Any = auto.from_pretrained(place, **options)
            assert isinstance(made, DiffusionModelForCausalLM)
            assert type(made.native).__name__ == "LlamaForCausalLM"
    config = AutoConfig.from_pretrained(place)
    assert isinstance(config, DiffusionConfig)
    assert config.model_type == "llada"
    assert config.d_model == 48
    assert config.get_text_config().hidden_size == 48


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_attention_is_known(layout: Layout) -> None:
    """Every family has a mask, or a class that brings its own; no type of transformers itself is taken over."""
    assert layout.attention in (*BOTH_WAYS, *LEFTWARDS, "block-causal", "own")
    for model_type in layout.model_types:
        own = issubclass(CONFIG_MAPPING[model_type], DiffusionConfig)
        assert own == (model_type in own_model_types())
        assert own != CONFIG_MAPPING[model_type].__module__.startswith("transformers.")


def test_weights_are_held_once_in_the_dtype_asked_for(folder: Callable[[str], Path]) -> None:
    """Whatever way the dtype is said."""
    place = folder("llada_dense")
    assert load("llada_dense", place).dtype == torch.float32
    for options in ({"dtype": "bfloat16"}, {"dtype": torch.bfloat16}, {"device_map": "cpu", "dtype": "bfloat16"}):
        model = load("llada_dense", place, **options)
        assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
        assert sum(1 for _ in model.parameters()) == sum(1 for _ in model.native.parameters())
        assert model.generate(torch.tensor([[7, 8]]), **GREEDY).shape == (1, 14)


def test_changed_weights_decode_anew(folder: Callable[[str], Path]) -> None:
    """The engine works on the model's own weights."""
    model = load("llada_dense", folder("llada_dense"))
    prompt = torch.tensor([[7, 8, 9]])
    before = model.generate(prompt, **GREEDY).tolist()
    with torch.no_grad():
        model.get_output_embeddings().weight.neg_()
    assert model.generate(prompt, **GREEDY).tolist() != before


def test_options_of_the_sampler(folder: Callable[[str], Path]) -> None:
    """As arguments or on the generation config; scores are those the tokens were drawn from."""
    model, prompt = load("llada_dense", folder("llada_dense")), torch.tensor([[7, 8, 9]])
    wanted: dict[str, Any] = {**GREEDY, "return_dict_in_generate": True}
    few = model.generate(prompt, block_length=4, steps=6, output_scores=True, **wanted)
    assert few.usage[0]["total_passes"] == 6
    assert [int(column.argmax()) for column in few.scores] == few.sequences[0, 3:].tolist()
    model.generation_config.block_length = 4
    model.generation_config.steps = 6
    assert model.generate(prompt, **wanted).sequences.tolist() == few.sequences.tolist()
    cached = model.generate(prompt, mode="fast_dllm", approximate_cache="dual", **wanted)
    assert cached.usage[0]["cache"] == "approximate"
    assert cached.cache is None
    sampled = [model.generate(prompt, max_new_tokens=12, do_sample=True, seed=seed).tolist() for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
