"""The router of a model: rules, then what was measured."""

from collections.abc import Hashable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from operator import index
from typing import NamedTuple

import torch

from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.drafting.kept import this_machine
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import PassError
from dllm_plugins.modes.base import Sampler
from dllm_plugins.request import Request
from dllm_plugins.routing import AUTO
from dllm_plugins.routing.contents import MOST_TOKENS
from dllm_plugins.routing.contents import Content
from dllm_plugins.routing.contents import content_of
from dllm_plugins.routing.kept import Book
from dllm_plugins.routing.kept import Places
from dllm_plugins.routing.kept import book
from dllm_plugins.routing.measured import Measured
from dllm_plugins.routing.rules import BETWEEN
from dllm_plugins.routing.rules import Kind
from dllm_plugins.routing.rules import kind_of
from dllm_plugins.routing.rules import served
from dllm_plugins.routing.rules import standing
from dllm_plugins.routing.rules import text_mode
from dllm_plugins.text.answer import Tokenizer
from dllm_plugins.text.answer import decoded

#: Prompts of more tokens are long.
_LONG = 256
#: Answers of fewer tokens say nothing of speed.
_TELLING = 8
_LOADS = ((1, "1 row"), (3, "2 to 3 rows"), (7, "4 to 7 rows"))


class Turn(NamedTuple):
    """From the answer's token `begin` on (the first is 0) `mode` decodes, and why."""

    begin: int
    mode: str
    why: str


@dataclass(frozen=True, slots=True)
class Route:
    """A choice, and why.

    :param kind: of the request, by which rules go.
    :param content: what it is about; of a constraint and of gaps, too.
    :param text: the mode whose text the rules want.
    :param mode: what begins to decode it, of `modes`, which all give that text.
    :param why: why that one.
    :param sampled: whether tokens are drawn at a temperature above 0.
    :param long: whether the prompt is.
    :param turns: what went on with it.
    """

    kind: Kind
    content: Content
    text: str
    mode: str
    modes: tuple[str, ...]
    why: str
    sampled: bool
    long: bool
    rows: int
    turns: tuple[Turn, ...] = ()

    @property
    def now(self) -> str:
        """The mode that decodes at the moment."""
        return self.turns[-1].mode if self.turns else self.mode

    def places(self, rows: float) -> Places:
        """The situation that measured speeds belong to, at a number of rows that share the passes, and wider ones."""
        load = next((told for most, told in _LOADS if round(rows) <= most), "8 rows or more")
        drawn = "sampled" if self.sampled else "greedy"
        kind = self.kind if self.content in ("open", self.kind) else f"{self.kind} ({self.content})"
        form = self.kind if self.kind in (*BETWEEN, "constraint") else "free text"
        narrow = f"{kind}, {drawn}, {'long' if self.long else 'short'} prompt, {load}"
        return narrow, f"{form}, {drawn}, {load}", drawn

    def __str__(self) -> str:
        others = [mode for mode in self.modes if mode != self.text]
        same = f", which {' and '.join(others)} give{'' if len(others) > 1 else 's'} too" if others else ""
        then = "".join(f"; from token {turn.begin + 1} on {turn.mode}: {turn.why}" for turn in self.turns)
        return f"{self.places(self.rows)[0]}: the text of {self.text}{same}; {self.mode}: {self.why}{then}"


class Router:
    """Chooses the mode of requests to one model. Any thread may use it.

    :param modes: all that are registered.
    :param tokenizer: reads what prompts are about.
    :param kept: where speeds are kept; None for the cache folder.
    """

    def __init__(
        self, denoiser: FullDenoiser, modes: Mapping[str, Sampler], tokenizer: Tokenizer, kept: Book | None = None
    ) -> None:
        self._denoiser = denoiser
        self._modes = modes
        self._tokenizer = tokenizer
        self._kept = kept

    @property
    def _book(self) -> Book:
        return self._kept or book()

    @cached_property
    def _model(self) -> str:
        spec = self._denoiser.spec
        form = self._denoiser.form() or f"{spec.name}, {spec.numerics}, {type(self._denoiser).__name__}"
        return f"{form}, threads: {torch.get_num_threads()}, {this_machine()}"

    def explain(self, request: Request, rows: int) -> Route:
        """The choice that would be made now.

        :param rows: that share the passes, this one included.
        :raises OptionError: where a rule names a mode that the model has not, or the file of rules is damaged.
        """
        return self._route(request, rows, counts=False)

    def choose(self, request: Request, rows: int) -> Route:
        """The same, made."""
        return self._route(request, rows, counts=True)

    def _route(self, request: Request, rows: int, *, counts: bool) -> Route:
        content, spec = content_in(request, self._tokenizer), self._denoiser.spec
        kind = kind_of(request, content)
        text = text_mode(kind, self._modes, spec)
        modes = self._alike(request, text)
        sampled, long = request.config.temperature > 0, len(request.tokens) > _LONG
        route = Route(kind, content, text, text, modes, "", sampled, long, rows)
        mode, why = self._asked(route, rows, counts=counts)
        return replace(route, mode=mode, why=why)

    def _asked(self, route: Route, rows: int, *, counts: bool) -> tuple[str, str]:
        ask = self._book.choose if counts and len(route.modes) > 1 else self._book.ask
        return ask(self._model, route.places(rows), lambda known, wider: known.choose(route.modes, wider))

    def go_on(self, route: Route, begin: int, rows: int) -> Route:
        """The choice for the next piece of an answer; the same route if the mode goes on.

        :param begin: tokens that the answer has.
        """
        mode, why = self._asked(route, rows, counts=True)
        return route if mode == route.now else replace(route, turns=(*route.turns, Turn(begin, mode, why)))

    def learn(self, route: Route, found: Measured) -> None:
        """A piece of an answer has ended; where rows joined or left, it counts for those there were on average."""
        if len(route.modes) == 1:
            return
        if found.tokens >= _TELLING and found.seconds > 0:
            places = route.places(found.rows / found.passes)
            self._book.learn(self._model, places, route.now, found.tokens, found.seconds)
        else:
            self._book.give_back(self._model, route.places(route.rows), route.now)

    def _alike(self, request: Request, text: str) -> tuple[str, ...]:
        """The modes that answer this request with the very text of one, it first; of gaps there is no other."""
        spec, known = self._denoiser.spec, served(self._modes, self._denoiser.spec)
        own = known.get(text)
        if own is None or kind_of(request) in BETWEEN or spec.mask_id in request.tokens or text in spec.others:
            return (text,)
        key = _key(own, request.config, text, self._denoiser)
        found = {own.name: text}
        for name, sampler in known.items() if key is not None else ():
            # What else a caller may have asked of the one, the other serves too.
            same = (sampler.onward, sampler.keeps_prefix) == (own.onward, own.keeps_prefix)
            same = same and sampler.name not in found and name not in spec.others
            if same and _key(sampler, request.config, name, self._denoiser) == key:
                found[sampler.name] = name
        return tuple(sorted(found.values(), key=lambda name: (name != text, spec.modes.index(name))))


def content_in(request: Request, tokenizer: Tokenizer) -> Content:
    """What a request is about.

    :param tokenizer: reads it where the request has none of its own.
    """
    try:
        tokens = [index(token) for token in request.tokens[-MOST_TOKENS:]]
    except TypeError:
        # What is no prompt is refused later, in the words of the mode that would have answered.
        return "open"
    try:
        text = decoded(request.tokenizer or tokenizer, tokens)
    except PassError:
        text = ""
    return content_of(tokens, text)


def stands(request: Request, modes: Mapping[str, Sampler], tokenizer: Tokenizer, spec: ModelSpec) -> str | None:
    """A mode that honours the same options as whatever will answer a request: with `auto` the one whose text it gets.

    :param modes: all that are registered.
    :raises OptionError: where a rule names a mode that the model has not, or the file of rules is damaged.
    """
    if request.config.mode != AUTO:
        return request.config.mode
    return standing(AUTO, kind_of(request, content_in(request, tokenizer)), modes, spec)


def _key(sampler: Sampler, config: SamplingConfig, mode: str, denoiser: FullDenoiser) -> Hashable:
    """What the text depends on beside the request; None if nothing else gives it, or the mode refuses the request."""
    config = config.model_copy(update={"mode": mode})
    try:
        sampler.check(config, denoiser.spec)
        return sampler.same_text(sampler.read(config, denoiser.spec.sampling), config, denoiser.spec)
    except OptionError:
        return None
