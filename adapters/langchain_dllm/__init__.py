"""The LangChain adapter: `ChatDLLM().invoke("...")` and `DLLM().invoke("...")`."""

from dllm_plugins.errors import MissingExtraError

try:
    from langchain_dllm.chat_model import ChatDLLM
    from langchain_dllm.text_model import DLLM
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "langchain_core":
        raise
    raise MissingExtraError(
        "langchain_dllm needs langchain-core; install it with `pip install 'dllm-plugins[langchain]'`"
    ) from error

__all__ = ["DLLM", "ChatDLLM"]
