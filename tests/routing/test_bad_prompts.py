"""Prompts that are none get their own errors in mode `auto`, as in every other."""

from typing import Any

import pytest

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.errors import RequestError


@pytest.mark.parametrize("tokens", [[], [-5], [10**30], ["a"] * 60, [[1]] * 60, [None] * 60, [2.5]])
def test_the_error_is_that_of_a_named_mode(tiny: Model, tokens: list[Any]) -> None:
    """What is read of a prompt before it is checked never fails by itself."""
    errors = []
    for mode in ("ar", "auto"):
        with pytest.raises(RequestError) as raised:
            tiny.engine().admit(Request(tokens, SamplingConfig(mode=mode)))
        errors.append(str(raised.value))
    assert errors[0] == errors[1]
