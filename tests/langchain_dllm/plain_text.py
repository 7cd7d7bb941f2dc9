"""What both of langchain-tests' suites are told about ChatDLLM."""

from langchain_dllm import ChatDLLM


class PlainText:
    """Text in; text out, and calls of tools."""

    @property
    def chat_model_class(self) -> type[ChatDLLM]:
        return ChatDLLM

    @property
    def supports_json_mode(self) -> bool:
        return True
