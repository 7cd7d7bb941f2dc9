"""Options of answers that may call tools."""

from collections.abc import Sequence

from dllm_plugins.config import SamplingConfig
from dllm_plugins.constraints.language import language_of
from dllm_plugins.constraints.values import Constraint
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message
from dllm_plugins.tools.format import CallFormat
from dllm_plugins.tools.language import answer_of
from dllm_plugins.tools.language import constraint_of
from dllm_plugins.tools.prompts import RESULT
from dllm_plugins.tools.tool import ANY
from dllm_plugins.tools.tool import AUTO
from dllm_plugins.tools.tool import Tool


def held(
    config: SamplingConfig, tools: Sequence[Tool], choice: str, parallel: bool | None, form: CallFormat, free: bool
) -> SamplingConfig:
    """See :meth:`dllm_plugins.speaker.Speaker.with_tools`.

    :param form: how the model writes calls.
    :param free: whether the mode cannot be held to anything.
    """
    if config.constraint is not None and choice != AUTO:
        raise OptionError(
            message("{constraint} is about answers that call nothing; let the model choose, or leave it out")
        )
    if choice == AUTO and free:
        return config
    several = choice == AUTO if parallel is None else parallel
    answer = None if config.constraint is None else language_of(config.constraint)
    return config.with_options(constraint=constraint_of(form, tools, choice, several, answer))


def calling(tools: Sequence[Tool], form: CallFormat, parallel: bool | None) -> Constraint:
    """What an answer is that calls, where nobody has asked for that: one call, unless several were allowed."""
    return constraint_of(form, tools, ANY, parallel=parallel is True)


def answering(config: SamplingConfig, given: SamplingConfig, form: CallFormat) -> SamplingConfig:
    """Options of an answer that calls nothing, and does not repeat what a tool returned.

    :param given: the options before those of tools were added.
    """
    answer = None if given.constraint is None else language_of(given.constraint)
    return config.with_options(constraint=answer_of(form, RESULT, answer))
