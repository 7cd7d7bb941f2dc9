"""Bad input gives a clear error that names the value and the remedy; nothing is lost."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import PluginError
from dllm_plugins.errors import RequestError


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": 1e9}, "temperature=1000000000"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": -5}, "max_new_tokens=-5"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"top_k": 0}, "top_k=0"),
        ({"seed": -1}, "seed=-1"),
        ({"block_length": 100000}, "block_length=100000"),
        ({"draft_length": 0}, "draft_length=0"),
        ({"threshold": 2}, "threshold=2"),
        ({"steps": 0}, "steps=0"),
        ({"factor": -1}, "factor=-1"),
        ({"stop": ""}, "stop string is empty"),
        ({"stop": ["x", "a\ud83d"]}, "half of a surrogate pair"),
        ({"temprature": 1.0}, "unknown option temprature=1.0"),
    ],
)
def test_absurd_options_are_refused(options: dict[str, Any], said: str) -> None:
    """Ranges are checked when the options are made, all at once."""
    with pytest.raises(OptionError) as caught:
        SamplingConfig(**options)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"mode": "telepathy"},
            "unknown mode 'telepathy'; modes of dllm: speculative, diffusion, ar, repair, alternating, and auto",
        ),
        ({"mode": "diffusion", "rule": "vote"}, "unknown rule 'vote'"),
        ({"mode": "speculative", "threshold": 0.5}, "threshold=0.5 has no effect in mode 'speculative'"),
        ({"mode": "ar", "draft_length": 3}, "draft_length=3 has no effect in mode 'ar'"),
        ({"mode": "diffusion", "draft_length": 3}, "draft_length=3 has no effect"),
        ({"mode": "diffusion", "rule": "threshold", "steps": 3}, "steps=3 has no effect"),
        ({"mode": "diffusion", "steps": 3, "threshold": 0.9}, "threshold=0.9 has no effect"),
        ({"mode": "diffusion", "factor": 1, "threshold": 0.9}, "threshold=0.9 has no effect"),
        ({"top_p": 0.9}, "top_p=0.9 has no effect at temperature 0"),
        ({"mode": "ar", "top_k": 9}, "top_k=9 has no effect at temperature 0"),
    ],
)
def test_options_without_effect_are_refused(tiny: Model, options: dict[str, Any], said: str) -> None:
    """Invariant 7: every option either changes what is computed or raises."""
    engine = tiny.engine()
    with pytest.raises(OptionError) as caught:
        engine.admit(Request([5, 6], SamplingConfig(**options)))
    assert said in str(caught.value)
    assert engine.active == ()


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([], "the prompt is empty"),
        ([5] * 512, "the prompt has 512 tokens, but dllm holds 512"),
        ([5, 259, 6], "the mask id 259 at position 1"),
        ([5, 400], "id 400 at position 1"),
        ([-1], "id -1 at position 0"),
        ([5, 1.5], "give integers"),
        (["5"], "give integers"),
    ],
)
def test_unusable_prompts_are_refused(tiny: Model, tokens: list[Any], said: str) -> None:
    """Empty, too long, holding the mask id, outside the vocabulary."""
    with pytest.raises(RequestError) as caught:
        tiny.engine().admit(Request(tokens))
    assert said in str(caught.value)


def test_an_answer_never_outgrows_the_context(tiny: Model) -> None:
    """A prompt that nearly fills the context gets the room that is left."""
    found = tiny.engine().generate([Request([5] * 505, SamplingConfig(max_new_tokens=100))])[0]
    assert len(found.tokens) <= 7


def test_empty_chat_is_refused(tiny: Model) -> None:
    """No message, or one of spaces only."""
    for messages in ([], [{"role": "user", "content": "  "}]):
        with pytest.raises(RequestError, match="empty"):
            tiny.encode_chat(messages)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("hi", "a chat is a list of messages, not a str"),
        ({"role": "user", "content": "hi"}, "not a dict"),
        (None, "not a NoneType"),
        ([None], "message 0 is a NoneType; give {"),
        ([{"role": "user", "content": "hi"}, "hi"], "message 1 is a str"),
        ([{"role": "user", "content": None}], "message 0 has NoneType as its content"),
    ],
)
def test_what_is_no_chat(tiny: Model, messages: Any, said: str) -> None:
    """Said with what to give, whatever it is."""
    with pytest.raises(RequestError) as caught:
        tiny.encode_chat(messages)
    assert said in str(caught.value)


def test_unknown_names_are_refused(tiny_folder: Path) -> None:
    """Model, backend, dtype, device, device map."""
    with pytest.raises(PluginError, match="unknown model 'gpt-9'; known: dllm"):
        load_model("gpt-9")
    with pytest.raises(PluginError, match="unknown backend 'abacus'"):
        load_model(base=tiny_folder, backend="abacus")
    cases: list[dict[str, Any]] = [
        {"dtype": "int3"},
        {"device": "toaster"},
        {"device_map": "sideways"},
        {"device_map": {}},
    ]
    for case in cases:
        with pytest.raises(OptionError, match=next(iter(case))):
            load_model(base=tiny_folder, denoiser=tiny_folder.parent / "denoiser.safetensors", **case)


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
@pytest.mark.parametrize("which", ["base", "denoiser"])
def test_missing_or_damaged_weights_are_refused(tiny_folder: Path, tmp_path: Path, which: str, damage: str) -> None:
    """The file and the remedy are named."""
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    denoiser = Path(shutil.copy(tiny_folder.parent / "denoiser.safetensors", tmp_path))
    victim = base / "model.safetensors" if which == "base" else denoiser
    if damage == "gone":
        victim.unlink()
    elif damage == "cut":
        victim.write_bytes(victim.read_bytes()[:2000])
    else:
        shutil.copy(denoiser if which == "base" else base / "model.safetensors", victim)
    with pytest.raises(CheckpointError) as caught:
        load_model(base=base, denoiser=denoiser)
    assert str(base if which == "base" else denoiser) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "llada"}, "model_type='llada'"),
        ({"tie_word_embeddings": False}, "has no tensor 'lm_head.weight'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type='yarn'"),
        ({"attention_bias": True}, "has no tensor 'model.layers.0.self_attn.k_proj.bias'"),
        ({"hidden_size": None}, "hidden_size=None"),
        ({"vocab_size": 300}, "config.json says (300, 64)"),
        ({"eos_token_id": None}, "eos_token_id=None"),
    ],
)
def test_other_checkpoints_are_refused(tiny_folder: Path, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """A config that contradicts the family is refused with the reason, never guessed at."""
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    config = json.loads((base / "config.json").read_text()) | change
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        load_model(base=base, denoiser=tiny_folder.parent / "denoiser.safetensors")
    assert said in str(caught.value)


def test_a_base_that_is_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a folder nor a hub id that can be fetched."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for base, command in (
        ("no/such-model", "hf download no/such-model"),
        ("not a hub id at all", "python -m dllm_plugins setup"),
    ):
        with pytest.raises(CheckpointError, match=f"neither a folder here nor a hub id.*`{command}`"):
            load_model(base=base)


def test_one_exception_hierarchy() -> None:
    """Whatever this package raises on purpose can be caught as DllmError."""
    for kind in (CheckpointError, OptionError, PluginError, RequestError):
        assert issubclass(kind, DllmError)
    assert issubclass(OptionError, ValueError)


def test_an_unknown_load_option_names_the_known_ones() -> None:
    """A misspelt option is an error of ours, before anything is read."""
    with pytest.raises(OptionError, match=r"unknown option dtyp='float32'.*dtype"):
        load_model("dllm", dtyp="float32")


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("tokenizer_config.json", {"model_max_length": "x"}),
        ("tokenizer_config.json", {"eos_token": 5}),
        ("tokenizer_config.json", {"padding_side": "up"}),
        ("tokenizer_config.json", {"extra_special_tokens": {"a": {"b": 3}}}),
        ("tokenizer.json", {"added_tokens": [{"id": -1}]}),
        ("tokenizer.json", {"model": {"type": "Unknown"}}),
        ("tokenizer.json", {"pre_tokenizer": [1, 2]}),
    ],
)
def test_damaged_tokenizers_are_refused_when_loaded(
    tiny_folder: Path, tmp_path: Path, file: str, values: dict[str, Any]
) -> None:
    """Not by the first text."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "folder"))
    found = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**found, **values}))
    with pytest.raises(CheckpointError, match=r"the tokenizer in .*folder .*again"):
        load_model("dllm", base=folder, denoiser=tiny_folder.parent / "denoiser.safetensors", device="cpu")


@pytest.mark.parametrize("text", ["null", "[]", "{", '{"eos_token_id": ["x"]}', '{"eos_token_id": {"a": 1}}'])
def test_generation_configs_of_the_wrong_kind(tiny_folder: Path, tmp_path: Path, text: str) -> None:
    """Named with what they hold."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "folder"))
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"generation_config|eos_token_id"):
        load_model(str(folder), family="diffullama", mask_id=258, dtype="float32", device="cpu")
