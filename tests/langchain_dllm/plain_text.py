"""What both of langchain-tests' suites are told about ChatDLLM."""

from langchain_dllm import ChatDLLM


class PlainText:
    """Text in, text out."""

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
    def supports_json_mode(self) -> bool:
        return True
