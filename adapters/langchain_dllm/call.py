"""The options of one call: a model's fields with the call's own changes, checked."""

from collections.abc import Mapping
from dataclasses import fields
from dataclasses import replace
from typing import Any

from pydantic import Field

from dllm_plugins.config import MOST_ALTERNATIVES
from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import calling
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import Dialect
from dllm_plugins.messages import shown
from dllm_plugins.options.checked import Checked
from dllm_plugins.options.unknown import unknown_option
from dllm_plugins.request import Request
from langchain_dllm.toolkit import Toolkit

#: Fields of a call that are no options of the engine.
_OWN = ("model_name", "timeout", "max_retries", "raw", "n", "top_logprobs", "suffix", "gap", "spans", "thinking")
#: What LangChain calls the engine's options.
LANGCHAIN = Dialect({"max_new_tokens": "max_tokens", "model_name": "model"})
#: Sampling options under the engine's names; LangChain says `max_tokens` for `max_new_tokens`.
SAMPLING = tuple(name for name in SamplingConfig.model_fields if name != "max_new_tokens")
LOADING = tuple(option.name for option in fields(LoadOptions))
#: What may change from call to call, besides what a class adds itself.
CALL = ("model_name", "max_tokens", *SAMPLING, "top_logprobs", "n", "thinking", "timeout", "max_retries")
#: Answers to one prompt, each of which is a row.
MOST_ANSWERS = 128


class Call(Checked):
    """What one call asks for.

    :param timeout: seconds until the answer must be complete; None waits for ever.
    :param max_retries: how often a request starts again after a pass failed.
    :param n: how many answers, decoded together.
    :param top_logprobs: how many alternatives `logprobs` tells of each token.
    :param thinking: whether the model is to think first; None leaves that to its chat template.
    :param raw: DLLM only: send the text without a chat template.
    :param as_tool: ChatDLLM only: the answer is the arguments of a call of this name.
    :param suffix: text behind the answer, which then fills the gap between; `gap`, DLLM only: what marks the gaps of
        a text; `spans`, DLLM only: characters (begin, end) of a text that are written anew. See
        :mod:`langchain_dllm.gaps`.
    :param toolkit: ChatDLLM only: what may be called.
    :raises OptionError: if any of them is of another kind or out of range.
    """

    model_name: str = Field(default="dllm", min_length=1)
    config: SamplingConfig
    timeout: float | None = Field(default=None, gt=0)
    max_retries: int = Field(default=0, ge=0)
    n: int = Field(default=1, ge=1, le=MOST_ANSWERS)
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_ALTERNATIVES)
    thinking: bool | None = None
    raw: bool = False
    as_tool: str | None = None
    suffix: str | None = None
    gap: str | None = Field(default=None, min_length=1)
    spans: tuple[tuple[int, int], ...] | None = None
    toolkit: Toolkit | None = None

    def requests(self, request: Request) -> list[Request]:
        """A request for each answer: the first has the call's seed, the next one that and one."""
        return [replace(request, config=config) for config in request.config.several(self.n)]

    def one(self) -> "Call":
        """The same, for ways to answer that give one answer.

        :raises OptionError: for more than one.
        """
        if self.n != 1:
            raise OptionError(f"n={self.n}: a stream is one answer; leave n out, or use generate() or invoke()")
        return self


def call_of(options: Mapping[str, Any]) -> Call:
    """Options under LangChain's names, None meaning the default, as a Call.

    :raises OptionError: for a value out of range.
    """
    given = {name: value for name, value in options.items() if value is not None}
    own = {name: given[name] for name in _OWN if name in given}
    sampling = {name: given[name] for name in SAMPLING if name in given and name != "logprobs"}
    if "max_tokens" in given:
        sampling["max_new_tokens"] = given["max_tokens"]
    with calling(LANGCHAIN):
        found = Call(config=SamplingConfig(), **own)
        alternatives = _alternatives(given.get("logprobs", False), found.top_logprobs, "logprobs" in given)
        if alternatives is not None:
            sampling["logprobs"] = alternatives
        return found.model_copy(update={"config": SamplingConfig(**sampling)})


def _alternatives(logprobs: object, top: int | None, said: bool) -> object:
    """The engine's `logprobs`: OpenAI's chat has a switch and `top_logprobs` beside it, its older interface a number.

    :param said: whether `logprobs` was given.
    :raises OptionError: if the two contradict one another.
    """
    if top is not None and said and logprobs is not True and (logprobs is False or logprobs != top):
        raise OptionError(f"top_logprobs={top} contradicts logprobs={shown(logprobs)}; leave one of them out")
    if logprobs is True:
        return top or 0
    return top if logprobs is False else logprobs


def changes_of(given: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """A call's keyword arguments under the names of the fields they change.

    :raises OptionError: for an argument that is not among `known`.
    """
    if "model" in given and "model_name" in given:
        raise OptionError(
            f"model={shown(given['model'])} and model_name={shown(given['model_name'])} are the same; give one"
        )
    # `stream` is LangChain's own switch between _generate and _stream; it has done its work by now.
    changes = {"model_name" if name == "model" else name: given[name] for name in given if name != "stream"}
    for name, value in changes.items():
        if name in LOADING:
            raise OptionError(
                f"{name}={shown(value)} is chosen when a model is made, not in a call; make another model"
            )
        if name not in known:
            with calling(LANGCHAIN):
                raise OptionError(unknown_option(name, value, in_engine_words(known), " of a call"))
    return changes


def in_engine_words(known: tuple[str, ...]) -> list[str]:
    """Options of LangChain under the engine's names."""
    return ["max_new_tokens" if name == "max_tokens" else name for name in known]
