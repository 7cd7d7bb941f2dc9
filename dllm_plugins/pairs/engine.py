"""The engine of a pair: requests in the other model's modes are decoded by an engine of its own, beside this one's."""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace

from dllm_plugins.config import SamplingConfig
from dllm_plugins.engine import Engine
from dllm_plugins.engine.admission import filling
from dllm_plugins.engine.job import Job
from dllm_plugins.engine.turns import turning
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Event
from dllm_plugins.events import Failure
from dllm_plugins.events import Finish
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.messages import message
from dllm_plugins.models import Model
from dllm_plugins.modes.alternating import NAME as ALTERNATING
from dllm_plugins.pairs.bridge import Bridge
from dllm_plugins.pairs.bridge import OneTokenizer
from dllm_plugins.pairs.router import PairRouter
from dllm_plugins.request import Request
from dllm_plugins.routing import AUTO
from dllm_plugins.template import Gap


class PairEngine(Engine):
    """See :class:`~dllm_plugins.engine.engine.Engine`; a step is a pass of each model that has rows."""

    def join(self, other: Model, bridge: Bridge) -> None:
        """Decode the other model's modes with it; once, before anything is admitted."""
        kept = None if self.prefixes is None else KeptPrefixes(other.denoiser.spec.context, blocks=True)
        self._bridge, self._spec = bridge, self.denoiser.spec
        self._other = Engine(other.denoiser, other.tokenizer, self.modes, kept, self.numbers)
        self.router = self._other.router = PairRouter(self._full, self.modes, self.tokenizer)

    def prepare(self, request: Request, company: int = 0) -> Job:
        """See :meth:`Engine.prepare`."""
        route, mode, spec = None, request.config.mode, self._spec
        if mode == AUTO:
            route = self.router.choose(request, len(self.active) + company + 1)
            mode = route.mode
        elif mode is None and request.template:
            mode = next(iter(filling(self.modes, spec)), None)
        request = replace(request, config=request.config.model_copy(update={"mode": mode}))
        if mode is not None and mode in spec.others:
            job = self._other.prepare(self._carried(request), company)
            job.model = spec.others[mode].name
        else:
            if mode == ALTERNATING and not isinstance(self._bridge, OneTokenizer):
                # Log-probabilities and stop tokens are those of the row's own model wherever it writes.
                guest = replace(request, config=request.config.model_copy(update={"logprobs": None}), stop_ids=None)
                _check_ids(guest, next(iter(spec.others.values())).name)
            job = super().prepare(request, company)
            job.samplers = turning(self.modes, route, spec)
        job.route = route
        return job

    def _carried(self, request: Request) -> Request:
        """The request as the other model is asked it.

        :raises OptionError: for what is told in ids, where those of the two are not the same.
        :raises RequestError: for a prompt that ends inside a character.
        """
        if not isinstance(self._bridge, OneTokenizer):
            _check_ids(request, self._spec.others[str(request.config.mode)].name)
        if request.otherwise is None:
            made = replace(
                request,
                tokens=self._over(request.tokens),
                suffix=self._over(request.suffix),
                template=[part if isinstance(part, Gap) else self._over(part) for part in request.template],
            )
        else:
            told = request.otherwise(request.config)
            made = replace(told, stop_ids=request.stop_ids, logits=request.logits, processors=request.processors)
        # Its own tokenizer has a text for each of its ids, and for no other.
        made = replace(made, tokenizer=None) if hasattr(self._other.tokenizer, "get_vocab") else made
        return replace(made, prefixes=None, slice=request.slice, noise=request.noise, otherwise=None)

    def _over(self, tokens: Sequence[int]) -> list[int]:
        found = self._bridge.over(list(tokens)) if tokens else []
        if found is None:
            raise RequestError("the prompt ends inside a character; give whole texts to a pair of two tokenizers")
        return found

    def enter(self, job: Job) -> int:
        """See :meth:`Engine.enter`."""
        return self._other.enter(job) if job.model else super().enter(job)

    def cancel(self, number: int) -> None:
        """See :meth:`Engine.cancel`."""
        self._other.cancel(number)
        super().cancel(number)

    def stop(self, number: int, length: int) -> Finish:
        """See :meth:`Engine.stop`."""
        return self._other.stop(number, length) if number in self._other.active else super().stop(number, length)

    @property
    def active(self) -> tuple[int, ...]:
        """See :meth:`Engine.active`."""
        return (*super().active, *self._other.active)

    @property
    def broken(self) -> bool:
        """See :meth:`Engine.broken`."""
        return super().broken or self._other.broken

    def advance(self, tell: Callable[[Event | Failure], None]) -> None:
        """See :meth:`Engine.advance`."""
        if self.broken:
            self.recover(tell)
            return
        super().advance(tell)
        self._other.advance(tell)

    def recover(self, tell: Callable[[Event | Failure], None]) -> None:
        """See :meth:`Engine.recover`."""
        super().recover(tell)
        self._other.recover(tell)


def _check_ids(request: Request, name: str) -> None:
    """Refuse what is told in ids of the model that verifies.

    :raises OptionError: naming it.
    """
    config: SamplingConfig = request.config
    ids = [word for word in config.bad_words or () if not isinstance(word, str)]
    given = {
        "logprobs": config.logprobs is not None,
        "bad_words of token ids": bool(ids),
        "stop_ids": bool(request.stop_ids),
        "logits": request.logits,
        "logits processors": bool(request.processors),
    }
    for what, there in given.items():
        if there:
            raise OptionError(
                message(
                    "{} go by ids, and {} has others than the model that it is paired with; leave them out, or use a "
                    "mode of that one",
                    what,
                    name,
                )
            )
