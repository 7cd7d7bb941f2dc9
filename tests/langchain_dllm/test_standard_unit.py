"""The unit suite of langchain-tests."""

from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_dllm import ChatDLLM


class TestChatDLLM(ChatModelUnitTests):
    """Stock tests only; `test_serdes` skips itself, as langchain-core allows no third-party classes to be loaded."""

    @property
    def chat_model_class(self) -> type[ChatDLLM]:
        return ChatDLLM

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_tool_choice(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False
