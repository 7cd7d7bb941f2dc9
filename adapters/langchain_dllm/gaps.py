"""Gaps in LangChain: a `suffix` behind what is written, texts with markers, and spans that are written anew."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from dataclasses import replace
from typing import Any

from dllm_plugins.edits import Edit
from dllm_plugins.errors import OptionError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.messages import shown
from dllm_plugins.request import Request
from dllm_plugins.template import ROOM
from dllm_plugins.template import Gap
from dllm_plugins.template import Growing
from dllm_plugins.template import Template
from dllm_plugins.warm.opening import Answering
from langchain_dllm.call import Call

#: Which options of a call change what a prompt is.
OPTIONS = ("suffix", "gap", "spans")


@dataclass(frozen=True, slots=True)
class Filling(Request):
    """A request that fills a template.

    :param whole: whether the answer is all of its text; else it is what stands in its gaps.
    """

    text: Template = field(default_factory=lambda: Template(Gap(tokens=1)))
    whole: bool = False


class Told:
    """Events of a request, in which the text of an answer is that of its template or its gaps."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._growing = Growing(request.text) if isinstance(request, Filling) and request.whole else None

    def events(self, event: Event) -> Iterator[Event]:
        """An event as it is told; the end of a template's text comes before its Finish."""
        if not isinstance(self._request, Filling):
            yield event
        elif isinstance(event, Draft):
            yield event if self._growing is None else self._draft(event, self._growing)
        elif self._growing is None:
            gaps = [gap if isinstance(gap, str) else gap.text for gap in event.gaps]
            yield replace(event, text="".join(gaps))
        elif isinstance(event, Commit):
            yield replace(event, text=self._growing.add(event.gaps))
        else:
            rest = self._growing.add((), done=True)
            if rest:
                yield Commit(event.row, event.step, (), rest)
            yield replace(event, text=self._request.text.filled([gap.text for gap in event.gaps]))

    def _draft(self, draft: Draft, growing: Growing) -> Draft:
        """A draft whose texts are the whole template's; its tokens are those from the first gap on, as ever."""
        pieces = growing.behind([gap.text for gap in draft.gaps])
        return replace(draft, committed=growing.text, text="".join(text for text, _ in pieces))


def requests_for(
    shared: Answering, before: str, call: Call, chat: Sequence[Mapping[str, Any]] = ()
) -> list[Request] | None:
    """The requests of a call that has gaps to fill, as many as answers are wanted; None for one that has none.

    What an answer must be is said of what it is: the gap before a suffix, or all of a text with markers; of spans each.

    :param before: the text before the suffix, or with markers, or with spans.
    :param chat: messages that it answers.
    :raises OptionError: for several kinds of gaps at once.
    :raises RequestError: for a text without a marker, and for spans that are none of it.
    """
    given = {name: value for name in OPTIONS if (value := getattr(call, name)) is not None}
    if not given:
        return None
    if len(given) > 1:
        told = " and ".join(f"{name}={shown(value)}" for name, value in given.items())
        raise OptionError(f"{told}: a text with markers or spans says itself what follows each gap; give one of them")
    room, moved = Gap(max_tokens=call.config.given().get("max_new_tokens", ROOM)), {"max_new_tokens"}
    if call.spans is not None:
        most = call.config.given().get("max_new_tokens")
        template = Edit(before, call.spans, most, call.config.constraint, chat).template
        moved.add("constraint")
    elif call.gap is None:
        template = Template(before, replace(room, constraint=call.config.constraint), call.suffix or "", chat=chat)
        moved.add("constraint")
    else:
        template = Template.of_text(before, room, call.gap, chat)
    if call.thinking is not None:
        raise OptionError(f"thinking={call.thinking} has no meaning where gaps are filled; leave it out")
    made = []
    for own in call.requests(Request((), call.config)):
        given = {name: value for name, value in own.config.given().items() if name not in moved}
        request = shared.model.fill_request(template, **given)
        values = {one.name: getattr(request, one.name) for one in fields(Request)}
        made.append(Filling(**values, text=template, whole=call.suffix is None))
    return list(made)
