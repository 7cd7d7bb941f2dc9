"""The engine: admits requests, runs passes, hands out events.

`step` is the unit of work: plan every row, one forward, read it, events. Rows join and
leave at any step, with unequal prompts, options and seeds.
"""

import secrets
import time
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from operator import index

from dllm_plugins.caches.kept import KeptPrefixes
from dllm_plugins.canvas import Row
from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.events import FinishReason
from dllm_plugins.events import Usage
from dllm_plugins.noise import RowNoise
from dllm_plugins.profile import OFF
from dllm_plugins.profile import PARTS
from dllm_plugins.profile import RULES
from dllm_plugins.profile import TEXT
from dllm_plugins.profile import Clock
from dllm_plugins.profile import Stopwatch
from dllm_plugins.profile import add
from dllm_plugins.profile import timed
from dllm_plugins.request import Request
from dllm_plugins.strategies.base import Plan
from dllm_plugins.strategies.base import Strategy
from dllm_plugins.text import AnswerText
from dllm_plugins.text import Tokenizer

#: What a denoiser that has to split passes offers beside its contract: calls of the model that a row took part in in
#: the last pass, by kind, given the row's handle and the kind of the whole pass.
Calls = Callable[[int, str], Mapping[str, int]]


@dataclass(slots=True)
class _Job:
    """A row with what the engine counts and tells about it.

    :param told: tokens that a Commit has named.
    :param looked: tokens of the answer among which there is no stop id.
    """

    row: Row
    strategy: Strategy
    text: AnswerText
    kept: KeptPrefixes | None
    began: float
    told: int = 0
    looked: int = 0
    forwarded: int = 0
    prefill: float = 0.0
    passes: dict[str, int] = field(default_factory=dict)
    parts: dict[str, float] | None = None


class Engine:
    """Decodes any number of requests together. One thread at a time.

    :param strategies: by mode name; see :func:`dllm_plugins.plugins.strategies`.
    :param prefixes: where finished rows leave their prefix for the next turn, unless a
        request names another place; None keeps nothing.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tokenizer: Tokenizer,
        strategies: Mapping[str, Strategy],
        prefixes: KeptPrefixes | None = None,
    ) -> None:
        self.denoiser = denoiser
        self.tokenizer = tokenizer
        self.strategies = strategies
        self.prefixes = prefixes
        self._jobs: dict[int, _Job] = {}
        self._admitted = 0

    def admit(self, request: Request) -> int:
        """Take a request in; its row joins at the next step.

        :returns: the row's number, which its events carry.
        :raises OptionError: for options the mode does not honour.
        :raises RequestError: for a prompt that is empty, too long, or holds a mask id.
        """
        spec, config = self.denoiser.spec, request.config
        if config.mode is None:
            config = config.model_copy(update={"mode": spec.modes[0]})
        strategy = self._strategy(config.mode)
        strategy.check(config, spec)
        tokens = self._check_prompt(request, strategy)
        room = spec.context - len(tokens) - len(request.suffix)
        if config.max_new_tokens > room:
            config = config.model_copy(update={"max_new_tokens": room})
        prompt = tokens.index(spec.mask_id) if spec.mask_id in tokens else len(tokens)
        tokens, given = tokens[:prompt], tokens[prompt:]
        if given:
            config = config.model_copy(update={"max_new_tokens": config.max_new_tokens + len(given)})
        if request.noise is not None and config.seed is not None:
            raise OptionError(f"seed={config.seed} has no effect beside the request's own noise; leave one of them out")
        seed = config.seed if config.seed is not None else secrets.randbelow(LARGEST_SEED)
        self._admitted += 1
        kept, state, cached = self.prefixes if request.prefixes is None else request.prefixes, None, 0
        if not strategy.keeps_prefix:
            kept = None
        if kept is not None:
            kept.bind(self.denoiser)
            state, cached = kept.find(tokens)
        row = Row(
            number=self._admitted,
            handle=self.denoiser.open_row(state, cached),
            tokens=tokens,
            prompt=len(tokens),
            config=config,
            noise=RowNoise(seed) if request.noise is None else request.noise,
            vocabulary=spec.vocabulary,
            stop_ids=spec.stop_ids if request.stop_ids is None else request.stop_ids,
            given=tuple(given),
            frozen=cached,
            cached=cached,
            logits={} if request.logits else None,
            suffix=tuple(request.suffix),
        )
        stops = config.stop if request.stop_ids is not None else (*config.stop, *spec.stops)
        text = AnswerText(self.tokenizer, stops)
        parts = dict.fromkeys(PARTS, 0.0) if config.stats else None
        self._jobs[row.number] = _Job(row, strategy, text, kept, time.perf_counter(), parts=parts)
        return row.number

    def _strategy(self, mode: str | None) -> Strategy:
        spec = self.denoiser.spec
        known = {name: spec.strategies.get(name, name) for name in spec.modes}
        strategy = self.strategies.get(known.get(mode or "", ""))
        if strategy is None and mode is not None and mode in spec.refused:
            raise OptionError(f"mode {mode!r} is not served by {spec.name}: {spec.refused[mode]}")
        if strategy is None:
            served = ", ".join(name for name, strategy in known.items() if strategy in self.strategies)
            raise OptionError(f"unknown mode {mode!r}; modes of {spec.name}: {served}")
        return strategy

    def _check_prompt(self, request: Request, strategy: Strategy) -> list[int]:
        spec = self.denoiser.spec
        try:
            tokens = [index(token) for token in request.tokens]
        except TypeError as error:
            raise RequestError(f"the prompt holds something that is no token id ({error}); give integers") from error
        if not tokens:
            raise RequestError("the prompt is empty; give at least one token")
        if request.suffix and not strategy.suffix:
            raise OptionError(
                f"mode {strategy.name!r} writes to the end of the text; leave the suffix of {len(request.suffix)} "
                f"tokens out, or choose a model that fills gaps"
            )
        if len(tokens) + len(request.suffix) >= spec.context:
            raise RequestError(
                f"the prompt has {len(tokens) + len(request.suffix)} tokens, but {spec.name} holds {spec.context} "
                f"with its answer; shorten it"
            )
        for place, token in enumerate([*tokens, *request.suffix]):
            if token == spec.mask_id and not (strategy.holes and place < len(tokens)):
                raise RequestError(f"the prompt holds the mask id {token} at position {place}; remove it")
            if not 0 <= token < spec.vocabulary and token != spec.mask_id:
                raise RequestError(
                    f"the prompt holds id {token} at position {place}, outside 0 to {spec.vocabulary - 1}"
                )
        return tokens

    def cancel(self, number: int) -> None:
        """Drop a row and its cache at once; a row that is done already is left alone."""
        job = self._jobs.pop(number, None)
        if job is not None:
            self.denoiser.close_row(job.row.handle)

    def stop(self, number: int, length: int) -> Finish:
        """End a row now, for a reason of the caller's; its answer is cut to `length` tokens.

        :raises RequestError: if the row is done, or was never admitted.
        """
        job = self._jobs.get(number)
        if job is None:
            raise RequestError(f"row {number} is not being decoded; active rows: {list(self._jobs) or 'none'}")
        answer = job.row.generated[:length]
        job.text.push(answer, last=True)
        if job.text.stopped:
            answer = answer[: job.text.tokens_used(answer)]
        return self._finish(job, answer, "stop")

    @property
    def active(self) -> tuple[int, ...]:
        """Numbers of the rows being decoded."""
        return tuple(self._jobs)

    def step(self) -> list[Event]:
        """One pass over all active rows. No rows, no pass."""
        jobs = list(self._jobs.values())
        if not jobs:
            return []
        asking = [job.parts for job in jobs if job.parts is not None]
        if not asking:
            return self._pass(jobs, self.denoiser, OFF)
        watch = Stopwatch(self.denoiser)
        events = self._pass(jobs, timed(self.denoiser, watch), watch)
        seconds = watch.stop()
        for parts in asking:
            # Also those of a row that has just finished: its Finish holds this very dict.
            add(parts, seconds)
        return events

    def _pass(self, jobs: Sequence[_Job], denoiser: Denoiser, clock: Clock) -> list[Event]:
        plans = [job.strategy.plan(job.row, denoiser.spec) for job in jobs]
        for job, plan in zip(jobs, plans, strict=True):
            if plan.release:
                denoiser.release(job.row.handle)
        hidden = iter(denoiser.forward([segment for plan in plans for segment in plan.segments]))
        parts = [[next(hidden) for _ in plan.segments] for plan in plans]
        for strategy in {id(job.strategy): job.strategy for job in jobs}.values():
            own = [place for place, job in enumerate(jobs) if job.strategy is strategy]
            with clock.part(RULES):
                strategy.read([jobs[place].row for place in own], [parts[place] for place in own], denoiser)
        events: list[Event] = []
        for job, plan in zip(jobs, plans, strict=True):
            self._count(job, plan, denoiser)
            events += self._tell(job, clock)
        return events

    def _count(self, job: _Job, plan: Plan, denoiser: Denoiser) -> None:
        told: Calls | None = getattr(denoiser, "rounds", None)
        for kind, count in ({plan.kind: 1} if told is None else told(job.row.handle, plan.kind)).items():
            job.passes[kind] = job.passes.get(kind, 0) + count
        job.forwarded += sum(len(segment.tokens) for segment in plan.segments)
        if job.row.step == 0:
            job.prefill = time.perf_counter() - job.began
        job.row.step += 1

    def _tell(self, job: _Job, clock: Clock) -> list[Event]:
        """Events of one row after a pass: what became final, what is tentative, the end."""
        row = job.row
        answer, reason = self._end(job)
        with clock.part(TEXT):
            new_text = job.text.push(answer, last=reason is not None)
            if job.text.stopped:
                answer, reason = answer[: job.text.tokens_used(answer)], "stop"
            sure = answer[: job.text.tokens_within(answer)] if reason is None else answer
        events: list[Event] = []
        new = tuple(sure[job.told :])
        if new or new_text:
            events.append(Commit(row.number, row.step, new, new_text))
            job.told += len(new)
        if reason is not None:
            return [*events, self._finish(job, answer, reason)]
        return [*events, self._draft(job, answer, clock)]

    def _draft(self, job: _Job, answer: Sequence[int], clock: Clock) -> Draft:
        """What stands behind the tokens that Commits have named: final ones held back, then the answer's canvas.

        A block may reach beyond the answer's end, and a suffix always does.
        """
        row, held = job.row, tuple(answer[job.told :])
        tentative = job.strategy.tentative(row, self.denoiser.spec)
        tentative = tentative[: min(len(tentative) - len(row.suffix), row.remaining)]
        guesses = tuple(
            row.guesses.get(place) if token is None else token for place, token in enumerate(tentative, len(row.tokens))
        )
        with clock.part(TEXT):
            shown = job.text.draft(answer, guesses)
        return Draft(row.number, row.step, held + tentative, shown, held + guesses)

    @staticmethod
    def _end(job: _Job) -> tuple[list[int], FinishReason | None]:
        """The answer without what lies behind its end, and why it ended, if it did."""
        row = job.row
        answer = row.generated[: row.config.max_new_tokens]
        for place in range(job.looked, len(answer)):
            if answer[place] in row.stop_ids:
                return answer[:place], "eos"
        job.looked = len(answer)
        if len(answer) == row.config.max_new_tokens:
            return answer, "length"
        return answer, "eos" if row.done else None

    def _finish(self, job: _Job, answer: Sequence[int], reason: FinishReason) -> Finish:
        row, spec = job.row, self.denoiser.spec
        del self._jobs[row.number]
        state = self.denoiser.close_row(row.handle)
        if job.kept is not None and row.frozen:
            job.kept.keep(row.tokens[: row.frozen], state)
        tentative = job.strategy.tentative(row, spec)
        usage = Usage(
            prompt_tokens=row.prompt,
            cached_tokens=row.cached,
            useful_tokens=len(answer),
            canvas_tokens=len(row.generated) + sum(token is not None for token in tentative),
            passes=job.passes,
            rows=job.forwarded,
            seconds=time.perf_counter() - job.began,
            prefill_seconds=job.prefill,
            mode=str(row.config.mode),
            cache=row.cache or spec.cache,
            numerics=spec.numerics,
            seed=row.noise.seed if row.config.temperature > 0 or row.noise.drawn else row.config.seed,
            parts=job.parts,
        )
        stop_token = row.generated[len(answer)] if reason == "eos" and len(answer) < len(row.generated) else None
        logits = None
        if row.logits is not None:
            length = len(answer) + (stop_token is not None)
            logits = tuple(row.logits[row.prompt + place] for place in range(length))
        rest = (*row.generated[len(answer) :], *tentative)
        return Finish(row.number, row.step, reason, tuple(answer), job.text.text, usage, stop_token, logits, rest)

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """Events of one request until it finishes. Closing the iterator frees its row at once.

        The request is admitted, and its errors raised, when the first event is asked for.
        Other rows that are active take part in the same passes; their events are dropped,
        so do not stream while somebody else steps the engine.
        """
        number = self.admit(request)
        try:
            while number in self._jobs:
                yield from (event for event in self.step() if event.row == number)
        finally:
            self.cancel(number)

    def generate(self, requests: Sequence[Request]) -> list[Finish]:
        """Decode several requests together; results in the order of `requests`."""
        numbers: list[int] = []
        done: dict[int, Finish] = {}
        try:
            for request in requests:
                numbers.append(self.admit(request))
            while any(number in self._jobs for number in numbers):
                done |= {event.row: event for event in self.step() if isinstance(event, Finish)}
        finally:
            for number in numbers:
                self.cancel(number)
        return [done[number] for number in numbers]
