"""Options of answers that may call tools."""

from collections.abc import Sequence

from dllm_plugins.config import SamplingConfig
from dllm_plugins.constraints.language import language_of
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message
from dllm_plugins.tools.format import CallFormat
from dllm_plugins.tools.language import constraint_of
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
