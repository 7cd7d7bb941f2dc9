"""A tokenizer that fails in mid-answer ends that answer with an error of ours; the others go on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.errors import PassError
from dllm_plugins.events import Failure
from dllm_plugins.sharing import SharedModel
from dllm_plugins.text.answer import AnswerText


class PanicException(BaseException):
    """What a panic of a library in Rust looks like in Python."""


class Failing:
    """A tokenizer that cannot write one token."""

    def __init__(self, tokenizer: Any, bad: int, error: BaseException) -> None:
        self._tokenizer = tokenizer
        self._bad = bad
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """All but the one."""
        if self._bad in token_ids:
            raise self._error
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)
        return text


def requests(mode: str) -> list[Request]:
    return [
        Request([3 + row] * (2 + row), SamplingConfig(mode=mode, max_new_tokens=6, seed=row), stop_ids=frozenset())
        for row in range(3)
    ]


@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion"])
@pytest.mark.parametrize("error", [ValueError("no such id"), OverflowError("too big"), PanicException("unwrap")])
def test_the_row_pays(tiny: Model, mode: str, error: BaseException) -> None:
    """Only the row with the token ends, the others as alone; no row is left."""
    alone = [tiny.engine().generate([request])[0] for request in requests(mode)]
    others = {token for position in (0, 2) for token in alone[position].tokens}
    bad = next(token for token in alone[1].tokens if token not in others)
    engine = tiny.engine()
    engine.tokenizer = Failing(tiny.tokenizer, bad, error)
    numbers = [engine.admit(request) for request in requests(mode)]
    ends: dict[int, Any] = {}
    while engine.active:
        ends |= {event.row: event for event in engine.step() if isinstance(event, Failure | Finish)}
    found = [ends[number] for number in numbers]
    assert [found[0].tokens, found[2].tokens] == [alone[0].tokens, alone[2].tokens]
    assert isinstance(found[1].error, PassError)
    words = f"cannot write .* {type(error).__name__}: {error}"
    with pytest.raises(PassError, match=words.replace(" .* ", r".*\(")) as caught:
        raise found[1].error
    assert caught.value.__cause__ is error
    assert not engine.broken


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_leaving_is_no_failure(tiny: Model, stop: BaseException) -> None:
    """An interrupt goes on as it is."""
    text = AnswerText(Failing(tiny.tokenizer, 5, stop), ())
    with pytest.raises(type(stop)):
        text.push([4, 5], last=True)


def test_a_model_that_is_shared(tiny: Model) -> None:
    """Whoever asked for the answer gets the error, and the model serves on."""
    request, other = requests("ar")[0], requests("ar")[2]
    answer = tiny.engine().generate([request])[0].tokens
    expected = tiny.engine().generate([other])[0].tokens
    bad = next(token for token in answer if token not in expected)
    shared = SharedModel(replace(tiny, tokenizer=Failing(tiny.tokenizer, bad, ValueError("no such id"))))
    with pytest.raises(PassError, match="cannot write"):
        list(shared.stream(request))
    assert list(shared.stream(other))[-1].tokens == expected
