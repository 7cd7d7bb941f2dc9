"""The unit suite of langchain-tests."""

from langchain_tests.unit_tests import ChatModelUnitTests

from .plain_text import PlainText


class TestChatDLLM(PlainText, ChatModelUnitTests):
    """Stock tests only; `test_serdes` skips itself, as langchain-core allows no third-party classes to be loaded."""
