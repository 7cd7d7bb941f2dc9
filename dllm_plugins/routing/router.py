"""The router of a model: rules, then what was measured."""

from collections.abc import Hashable
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.drafting.kept import this_machine
from dllm_plugins.errors import OptionError
from dllm_plugins.modes.base import Sampler
from dllm_plugins.request import Request
from dllm_plugins.routing.kept import Book
from dllm_plugins.routing.kept import book
from dllm_plugins.routing.measured import Measured
from dllm_plugins.routing.rules import Kind
from dllm_plugins.routing.rules import kind_of
from dllm_plugins.routing.rules import served
from dllm_plugins.routing.rules import text_mode

#: Prompts of more tokens are long.
_LONG = 256
#: Answers of fewer tokens say nothing of speed.
_TELLING = 8
_LOADS = ((1, "1 row"), (3, "2 to 3 rows"), (7, "4 to 7 rows"))


@dataclass(frozen=True, slots=True)
class Route:
    """A choice, and why.

    :param kind: of the request; the rules know no more of it.
    :param text: the mode whose text the rules want.
    :param mode: what decodes it, of `modes`, which all give that text.
    :param why: why that one.
    :param likeness: what else the speed of modes may depend on.
    """

    kind: Kind
    text: str
    mode: str
    modes: tuple[str, ...]
    why: str
    likeness: str
    rows: int

    def situation(self, rows: float) -> str:
        """What measured speeds belong to, at a number of rows that share the passes."""
        load = next((told for most, told in _LOADS if round(rows) <= most), "8 rows or more")
        return f"{self.kind}, {self.likeness}, {load}"

    def __str__(self) -> str:
        others = [mode for mode in self.modes if mode != self.text]
        same = f", which {' and '.join(others)} give{'' if len(others) > 1 else 's'} too" if others else ""
        return f"{self.situation(self.rows)}: the text of {self.text}{same}; {self.mode}: {self.why}"


class Router:
    """Chooses the mode of requests to one model. Any thread may use it.

    :param modes: all that are registered.
    :param kept: where speeds are kept; None for the cache folder.
    """

    def __init__(self, denoiser: FullDenoiser, modes: Mapping[str, Sampler], kept: Book | None = None) -> None:
        self._denoiser = denoiser
        self._modes = modes
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
        kind, spec = kind_of(request), self._denoiser.spec
        text = text_mode(kind, self._modes, spec)
        modes = self._alike(request, text)
        drawn = "greedy" if request.config.temperature == 0 else "sampled"
        likeness = f"{drawn}, {'long' if len(request.tokens) > _LONG else 'short'} prompt"
        route = Route(kind, text, text, modes, "", likeness, rows)
        kept, situation = self._book, route.situation(rows)
        ask = kept.choose if counts and len(modes) > 1 else kept.ask
        mode, why = ask(self._model, situation, lambda known: known.choose(modes))
        return Route(kind, text, mode, modes, why, likeness, rows)

    def learn(self, route: Route, found: Measured) -> None:
        """An answer has ended; where others joined or left, it counts for the rows that there were on average."""
        if found.tokens >= _TELLING and found.seconds > 0 and len(route.modes) > 1:
            situation = route.situation(found.rows / found.passes)
            self._book.learn(self._model, situation, route.mode, found.tokens, found.seconds)

    def _alike(self, request: Request, text: str) -> tuple[str, ...]:
        """The modes that answer this request with the very text of one, it first; of gaps there is no other."""
        spec, known = self._denoiser.spec, served(self._modes, self._denoiser.spec)
        own = known.get(text)
        if own is None or kind_of(request) == "gaps" or spec.mask_id in request.tokens:
            return (text,)
        key = _key(own, request.config, text, self._denoiser)
        found = {own.name: text}
        for name, sampler in known.items() if key is not None else ():
            # What else a caller may have asked of the one, the other serves too.
            same = (sampler.onward, sampler.keeps_prefix) == (own.onward, own.keeps_prefix)
            if same and sampler.name not in found and _key(sampler, request.config, name, self._denoiser) == key:
                found[sampler.name] = name
        return tuple(sorted(found.values(), key=lambda name: (name != text, spec.modes.index(name))))


def _key(sampler: Sampler, config: SamplingConfig, mode: str, denoiser: FullDenoiser) -> Hashable:
    """What the text depends on beside the request; None if nothing else gives it, or the mode refuses the request."""
    config = config.model_copy(update={"mode": mode})
    try:
        sampler.check(config, denoiser.spec)
        return sampler.same_text(sampler.read(config, denoiser.spec.sampling), config, denoiser.spec)
    except OptionError:
        return None
