"""The integration suite of langchain-tests, on the default model.

What it answers to the suite's prompts is in docs/langchain.md; no test of the suite that
applies so far asks for content that 135 M weights cannot give.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests

from dllm_plugins import Model
from dllm_plugins import hookimpl
from dllm_plugins import load_model
from dllm_plugins import plugins
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.models import Preset
from langchain_dllm import ChatDLLM

from .plain_text import PlainText

OTHER = "dllm-by-another-name"
PARAMETERS: dict[str, Any] = {"model": "dllm", "weights": "blocks_int8", "device": "cpu", "max_tokens": 64}


class OtherPreset:
    """A plug-in with a second name for the default model."""

    @hookimpl
    def register_models(self) -> list[Preset]:
        def load(options: LoadOptions) -> Model:
            return load_model("dllm", weights=options.weights, device=options.device)

        return [Preset(OTHER, "the default model", load)]


@pytest.fixture(scope="module")
def models() -> Iterator[None]:
    """The default model and a second preset stay loaded between the tests."""
    name = plugins.manager().register(OtherPreset())
    keepers = [ChatDLLM(**{**PARAMETERS, "model": model}) for model in ("dllm", OTHER)]
    for keeper in keepers:
        keeper.get_num_tokens("loads the model")
    yield
    plugins.manager().unregister(name=name)


@pytest.mark.slow
@pytest.mark.usefixtures("load_default", "models")
class TestChatDLLM(PlainText, ChatModelIntegrationTests):
    """Stock tests only."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return PARAMETERS

    @property
    def supported_usage_metadata_details(self) -> dict[Any, Any]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> Any:
        """The second turn of a conversation starts from the kept prefix of the first."""
        model = ChatDLLM(**PARAMETERS)
        history: list[Any] = [("human", "Name a river.")]
        history += [model.invoke(history), ("human", "Name another one.")]
        if not stream:
            return model.invoke(history)
        first, *rest = model.stream(history)
        return sum(rest, start=first)

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return OTHER
