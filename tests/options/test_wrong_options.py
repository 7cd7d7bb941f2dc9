"""Wrong values of every option, in every host: a call that means something, or an error of ours."""

import copy
import math
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dllm_plugins import DllmError
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins import plugins
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import calling
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import Dialect
from dllm_plugins.messages import Option
from dllm_plugins.messages import message
from dllm_plugins.options.unknown import REASONS
from dllm_plugins.rules.base import RuleSettings
from dllm_plugins.rules.base import revocation_parameters
from dllm_transformers import DiffusionModelForCausalLM
from dllm_transformers.asked import option_names
from langchain_dllm import DLLM
from langchain_dllm import ChatDLLM
from langchain_dllm.base import EngineModel
from langchain_dllm.call import LANGCHAIN
from llm_dllm.dialect import LLM
from llm_dllm.options import Options

from ..dllm_transformers.checkpoints import copy_of

DEEP: Any = []
for _ in range(5000):
    DEEP = [DEEP]
WRONG: tuple[Any, ...] = (
    *("x", "", "hot", "-1", "\0", "\udcff", b"x"),
    *(-1, 0, -0.5, 1.5, 10**30, 10**400, 10**5000, math.nan, math.inf, -math.inf, True, False, None),
    *([], ["a", 1], [""], [None], {}, {"x": 1}, {1: 2}, (), object(), int, 3j, DEEP, {"x": DEEP}),
)


def refused_or_right(ask: Callable[[], Any]) -> str:
    """The words of the refusal; nothing else may be raised."""
    try:
        ask()
    except DllmError as error:
        assert str(error)
        return str(error)
    return ""


@pytest.mark.parametrize("name", SamplingConfig.model_fields)
def test_options_of_the_engine(tiny: Model, name: str) -> None:
    """Read and admitted: what is taken is of the right kind."""
    engine = tiny.engine()
    for value in WRONG:

        def ask(value: Any = value) -> None:
            config = SamplingConfig(**{name: value})
            number = engine.admit(Request([1, 2, 3], config))
            engine.cancel(number)
            found = getattr(config, name)
            assert found is None or isinstance(found, int | float | str | bool | tuple | dict)

        words = refused_or_right(ask)
        if isinstance(value, bool) and name != "stats":
            assert words, f"{name}={value} is taken"


@pytest.mark.parametrize("name", Options.model_fields)
def test_options_of_llm(name: str) -> None:
    """As a script gives them; the engine's own name of an option is never said."""
    for value in WRONG:
        words = refused_or_right(partial(Options, **{name: value}))
        assert "max_new_tokens" not in words
        if isinstance(value, bool) and name not in ("stats", "thinking"):
            assert words, f"{name}={value} is taken"


@pytest.mark.parametrize("kind", [ChatDLLM, DLLM])
@pytest.mark.parametrize(
    "name", [*sorted(EngineModel.model_fields.keys() - {"callbacks", "custom_get_token_ids"}), "telepathy"]
)
def test_fields_and_calls_of_langchain(kind: type[EngineModel], name: str) -> None:
    """When a model is made, and in a call."""
    model = kind()
    for value in WRONG:
        words = refused_or_right(partial(kind, **{name: value}))
        words += refused_or_right(partial(model._call, None, {name: value}))
        assert "max_new_tokens" not in words
        assert "pydantic" not in words


@pytest.mark.parametrize("name", LoadOptions.__dataclass_fields__)
def test_options_of_loading(tiny_folder: Path, name: str) -> None:
    """Of a checkpoint's folder without weights, of which nothing is read."""
    for value in WRONG:
        refused_or_right(partial(load_model, "dllm", **{"base": str(tiny_folder / "none"), name: value}))
        refused_or_right(partial(load_model, value))


@pytest.fixture(scope="module")
def llada(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Any:
    """A tiny LLaDA as transformers loads it, whose answers are not waited for."""
    return DiffusionModelForCausalLM.from_pretrained(
        copy_of("llada_dense", tmp_path_factory.mktemp("llada") / "llada", tiny_folder)
    )


@pytest.mark.parametrize(
    "name",
    [
        *sorted(option_names() | SamplingConfig.model_fields.keys() | {"denoiser", "streamer", "tokenizer"}),
        *("generation_config", "logits_processor", "stopping_criteria", "stop_strings", "attention_mask"),
        *("position_ids", "past_key_values", "input_ids", "telepathy", *REASONS),
    ],
)
def test_arguments_of_generate(llada: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever transformers itself would say of them."""
    monkeypatch.setattr("dllm_transformers.strategy.decode", _answered)
    for value in WRONG:
        given = {"input_ids": torch.tensor([[7, 8, 9]]), "max_new_tokens": 2, name: value}
        words = refused_or_right(partial(llada.generate, **given))
        if name in REASONS and name not in option_names() and value:
            assert words


class _AnsweredError(DllmError):
    """All checks have passed."""


def _answered(*_given: Any) -> None:
    raise _AnsweredError("answered")


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "position_ids"])
def test_tensors_of_another_shape(llada: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they hold."""
    monkeypatch.setattr("dllm_transformers.strategy.decode", _answered)
    for value in (torch.ones(3), torch.ones(1, 3), torch.ones(2, 9), torch.ones(1, 1, 3), torch.ones(0, 0)):
        for tensor in (value, value.long(), value.bool()):
            given = {"input_ids": torch.tensor([[7, 8, 9]]), "max_new_tokens": 2, name: tensor}
            refused_or_right(partial(llada.generate, **given))


@pytest.mark.parametrize("host", [LLM, LANGCHAIN])
def test_every_option_that_is_called_otherwise(host: Dialect) -> None:
    """One table a host; what users wrote is never taken for a name."""
    for name, theirs in host.names.items():
        with pytest.raises(OptionError) as caught, calling(host):
            raise OptionError(message("{" + name + "}={!r} is above {}", f"{name} {{{name}}}", Option(name)))
        assert str(caught.value) == f"{theirs}={f'{name} {{{name}}}'!r} is above {theirs}"
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        assert str(copy.deepcopy(caught.value)) == str(caught.value)


def test_an_unknown_entry_is_answered_with_those_there_are() -> None:
    """For every rule, revocation and sampler, in the words of the host."""
    for name, rule in {**plugins.rules(), **plugins.revocations()}.items():
        settings = getattr(rule, "settings", RuleSettings)
        with pytest.raises(OptionError) as caught, calling(LLM):
            revocation_parameters(settings, SamplingConfig(revoke_options={"telepathy": 1}), name)
        words = str(caught.value)
        assert "there is no 'telepathy'" in words
        assert all(field in words for field in settings.model_fields)
        if "for example" in words:
            assert "for example -o revoke_options '{" in words
