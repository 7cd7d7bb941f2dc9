"""All originals, and the answer to an argument of theirs that somebody gives."""

from collections.abc import Iterable

from dllm_plugins.messages import Message
from dllm_plugins.messages import joined
from dllm_plugins.messages import message
from dllm_plugins.messages import shown
from dllm_plugins.options.originals import blocks
from dllm_plugins.options.originals import whole
from dllm_plugins.options.originals.base import Here

ORIGINALS = (*whole.ORIGINALS, *blocks.ORIGINALS)


def answer(name: str, value: object, samplers: Iterable[str] | None = None) -> Message | None:
    """What to write for an argument that an original has and we do not: a sentence, None if none has it.

    :param samplers: of the model, if it is known; those of all families are told apart by name if not.
    """
    samplers = None if samplers is None else frozenset(samplers)
    found = {found.sampler: found.arguments[name] for found in reversed(ORIGINALS) if name in found.arguments}
    own = {sampler: here for sampler, here in found.items() if samplers is None or sampler in samplers}
    meant: dict[Here, list[str]] = {}
    for sampler, here in reversed((own or found).items()):
        meant.setdefault(here, []).append(sampler)
    if not meant:
        return None
    if len(meant) == 1:
        return message("{}={} {}", name, shown(value), next(iter(meant)).text_for(name, value))
    parts = [message("with {} it {}", ", ".join(names), here.text_for(name, value)) for here, names in meant.items()]
    return message("{}={}: {}", name, shown(value), joined(parts))
