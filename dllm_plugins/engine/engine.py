"""The engine: admits requests, runs passes, hands out events.

`step` is the unit of work: what every row wants, one forward, answers, events. Rows join and
leave at any step, with unequal prompts, options and seeds. What one row raises ends that
row; a forward that fails ends the rows in it. What comes from outside in the middle of a
pass (Ctrl-C and the like) goes on to the caller, and leaves rows in a state nobody knows:
all rows of that pass end with a Failure when the engine is used next.
"""

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count as counting

from dllm_plugins.decoding.failing import blaming
from dllm_plugins.decoding.failing import broken_off
from dllm_plugins.decoding.failing import ending
from dllm_plugins.decoding.failing import or_raise
from dllm_plugins.decoding.failing import sharing
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.running import answer_programs
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.denoisers.base import completed
from dllm_plugins.drafting.watched import WatchedCosts
from dllm_plugins.engine.admission import check_prompt
from dllm_plugins.engine.admission import filling
from dllm_plugins.engine.admission import room_of
from dllm_plugins.engine.admission import row_of
from dllm_plugins.engine.admission import sampler_of
from dllm_plugins.engine.charges import Charges
from dllm_plugins.engine.constrained import limits_of
from dllm_plugins.engine.final import check_final
from dllm_plugins.engine.job import Job
from dllm_plugins.engine.making import job_of
from dllm_plugins.engine.profile import OFF
from dllm_plugins.engine.profile import RULES
from dllm_plugins.engine.profile import Clock
from dllm_plugins.engine.profile import Stopwatch
from dllm_plugins.engine.profile import add
from dllm_plugins.engine.profile import timed
from dllm_plugins.engine.steered import steering_of
from dllm_plugins.engine.turns import take_turns
from dllm_plugins.engine.turns import turning
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Event
from dllm_plugins.events import Failure
from dllm_plugins.events import Finish
from dllm_plugins.events import FinishReason
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.modes.base import Sampler
from dllm_plugins.request import Request
from dllm_plugins.routing import AUTO
from dllm_plugins.routing.router import Router
from dllm_plugins.text.answer import Tokenizer


class Engine:
    """Decodes any number of requests together. One thread at a time.

    :param modes: by name; see :func:`dllm_plugins.plugins.modes`.
    :param prefixes: where finished rows leave their prefix for the next turn, unless a
        request names another place; None keeps nothing.
    :param numbers: of rows, ascending; None for its own, from 1.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tokenizer: Tokenizer,
        modes: Mapping[str, Sampler],
        prefixes: KeptPrefixes | None = None,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self.denoiser = denoiser
        self._full = completed(denoiser)
        self.tokenizer = tokenizer
        self.modes = modes
        self.prefixes = prefixes
        self.router = Router(self._full, modes, tokenizer)
        self._charges = Charges()
        self._costs = WatchedCosts(self._full)
        self._jobs: dict[int, Job] = {}
        self.numbers = counting(1) if numbers is None else numbers
        # Rows of the pass under way, until all of it was told: if it is broken off, they are found here.
        self._passing: tuple[Job, ...] = ()
        self._broken_by: BaseException | None = None
        # Rows that have ended, but are still open in the denoiser: closing one in mid-pass would fail the pass.
        self._ending: deque[Job] = deque()
        self._busy = False

    def admit(self, request: Request) -> int:
        """Take a request in; its row joins at the next step.

        :returns: the row's number, which its events carry.
        :raises OptionError: for options the mode does not honour.
        :raises RequestError: for a prompt that is empty, too long, or holds a mask id.
        """
        return self.enter(self.prepare(request))

    def prepare(self, request: Request, company: int = 0) -> Job:
        """Check a request and make all of its row that needs nothing of the engine, such as its constraint's automaton.

        Any thread may do so at any time, passes under way or not; :meth:`enter` takes what it gives.

        :param company: requests that will enter with it, by which mode `auto` may choose.
        :raises OptionError: for options the mode does not honour.
        :raises RequestError: for a prompt that is empty, too long, or holds a mask id.
        """
        route = None
        if request.config.mode == AUTO:
            route = self.router.choose(request, len(self._jobs) + company + 1)
            request = replace(request, config=request.config.model_copy(update={"mode": route.mode}))
        spec, config, fills = self.denoiser.spec, request.config, filling(self.modes, self.denoiser.spec)
        if config.mode is None:
            first = fills if request.template and fills else spec.modes
            config = config.model_copy(update={"mode": first[0]})
        if request.template:
            config = config.model_copy(update={"max_new_tokens": room_of(request.template)})
        sampler = sampler_of(self.modes, config.mode, spec)
        sampler.check(config, spec)
        check_final(config, spec)
        tokens = check_prompt(request, sampler, spec, fills)
        if request.noise is not None and config.seed is not None:
            raise OptionError(f"seed={config.seed} has no effect beside the request's own noise; leave one of them out")
        row = row_of(request, config, tokens, spec)
        row.costs = self._costs
        tokenizer = request.tokenizer or self.tokenizer
        row.limits = limits_of(row, len(tokens), sampler, tokenizer, spec, request.thinking, part=request.part)
        row.steering = steering_of(row, request.processors, sampler, tokenizer, spec)
        if request.part is not None:
            row.steering = row.steering and replace(row.steering, prompt=row.prompt - request.part.begun)
            # Whoever asked for the whole answer checks it.
            row.config = row.config.model_copy(update={"constraint": None})
        job = job_of(request, row, sampler, spec, tokenizer, self.prefixes)
        job.route, job.samplers = route, turning(self.modes, route, spec)
        return job

    def enter(self, job: Job) -> int:
        """Take in what was prepared, once; its row joins at the next step.

        :returns: the row's number, which its events carry.
        """
        self._sweep()
        row, state, cached = job.row, None, 0
        job.began = time.perf_counter()
        if job.kept is not None:
            job.kept.bind(self.denoiser)
            state, cached = job.kept.find(row.tokens, job.unit)
            cached = cached if job.most_cached is None else min(cached, job.most_cached)
        row.number = next(self.numbers)
        row.frozen = row.cached = cached
        handle: int | None = None
        try:
            handle = row.handle = self.denoiser.open_row(state, cached)
            self._jobs[row.number] = job
            return row.number
        except BaseException:
            self._jobs.pop(row.number, None)
            if handle is not None:
                self.denoiser.close_row(handle)
            raise

    def cancel(self, number: int) -> None:
        """Drop a row and its cache at once; a row that is done already is left alone."""
        job = self._jobs.get(number)
        if job is not None:
            self._drop(job)
        self._passing = tuple(job for job in self._passing if job.row.number != number)
        # A generator may be closed by the garbage collector in mid-pass.
        if not self._busy:
            self._sweep()

    def stop(self, number: int, length: int) -> Finish:
        """End a row now, for a reason of the caller's; its answer is cut to `length` tokens.

        :raises RequestError: if the row is done, or was never admitted.
        :raises PassError: if its last pass was broken off, or its text cannot be made.
        """
        job = self._jobs.get(number)
        if job is None:
            raise RequestError(f"row {number} is not being decoded; active rows: {list(self._jobs) or 'none'}")
        others = self._passing
        if job in others:
            raise broken_off(len(self._passing), self._broken_by)
        self._passing, answer = (*others, job), job.row.generated[:length]
        with blaming(job.row):
            job.text.push(answer, last=True)
            if job.text.stopped:
                answer = answer[: job.text.tokens_used(answer)]
            finish = self._finish(job, answer, "stop")
        failure = None if job.row.error is None else self._fail(job)
        self._sweep()
        self._passing = others
        if failure is not None:
            raise failure.error
        return finish

    @property
    def active(self) -> tuple[int, ...]:
        """Numbers of the rows that events are still to come of."""
        return tuple(dict.fromkeys([*self._jobs, *(job.row.number for job in self._passing)]))

    @property
    def broken(self) -> bool:
        """Whether the last pass was broken off, and its rows still have to be told."""
        return bool(self._passing)

    def step(self) -> list[Event | Failure]:
        """One pass over all active rows. No rows, no pass.

        Nothing that a row, a plug-in or the denoiser raises comes out of here: their rows end with
        a Failure. After an interrupt, the next step makes no pass: it tells the rows of the one
        that was broken off that they have failed.
        """
        events: list[Event | Failure] = []
        self.advance(events.append)
        return events

    def advance(self, tell: Callable[[Event | Failure], None]) -> None:
        """As :meth:`step`; the pass counts as broken off until `tell` has had all of its events."""
        if self.broken:
            self.recover(tell)
            return
        self._sweep()
        jobs = tuple(self._jobs.values())
        if not jobs:
            return
        self._broken_by, self._passing = None, jobs
        try:
            self._busy = True
            events = self._timed_pass(jobs)
            for event in events:
                tell(event)
        except BaseException as error:
            self._broken_by = error
            raise
        finally:
            self._busy = False
        self._sweep()
        self._passing = ()

    def recover(self, tell: Callable[[Event | Failure], None]) -> None:
        """End the rows of a pass that was broken off, and tell them; nothing if there is none."""
        for job in self._passing:
            self._drop(job)
            tell(Failure(job.row.number, job.row.step, broken_off(len(self._passing), self._broken_by)))
        self._sweep()
        self._passing, self._broken_by = (), None

    def _timed_pass(self, jobs: Sequence[Job]) -> list[Event | Failure]:
        asking = [job.parts for job in jobs if job.parts is not None]
        if not asking:
            return self._pass(jobs, self._full, OFF)
        watch = Stopwatch(self._full)
        events = self._pass(jobs, timed(self._full, watch), watch)
        seconds = watch.stop()
        for parts in asking:
            # Also those of a row that has just finished: its Finish holds this very dict.
            add(parts, seconds)
        return events

    def _pass(self, jobs: Sequence[Job], denoiser: FullDenoiser, clock: Clock) -> list[Event | Failure]:
        passes: dict[int, Pass] = {}
        began, lengths = time.perf_counter(), [len(job.row.tokens) for job in jobs]
        for job in jobs:
            with blaming(job.row):
                take_turns(job, self.router, self.denoiser.spec, len(jobs))
                wanted = passes[job.row.number] = job.running.wanted()
                if wanted.release:
                    denoiser.release(job.row.handle)
        self._forward([job for job in jobs if job.row.error is None], passes, denoiser, clock)
        seconds = time.perf_counter() - began
        self._costs.note(passes.values(), seconds)
        if any(job.route for job in jobs):
            self._charges.note(jobs, passes, lengths, seconds)
        for job in jobs:
            if job.row.error is None:
                with blaming(job.row):
                    job.count(passes[job.row.number], denoiser)
        events: list[Event | Failure] = []
        for job in jobs:
            own: list[Event | Failure] = []
            if job.row.error is None:
                with blaming(job.row):
                    own = self._tell(job, clock)
            events += own if job.row.error is None else [self._fail(job)]
        return events

    def _forward(self, jobs: Sequence[Job], passes: Mapping[int, Pass], denoiser: FullDenoiser, clock: Clock) -> None:
        """Forward these rows and answer what their programs ask; whatever fails is noted in the rows that took part."""
        if not jobs:
            return
        own, rows = [passes[job.row.number] for job in jobs], [job.row for job in jobs]
        forwarded = [made.forwarded for made in own]
        for row, count in zip(rows, forwarded, strict=True):
            row.company = len(rows) - 1, sum(forwarded) - count
        with sharing(rows):
            hidden = iter(denoiser.forward([segment for made in own for segment in made.segments]))
            parts = [[next(hidden) for _ in made.segments] for made in own]
            with clock.part(RULES):
                answer_programs([job.running for job in jobs], parts, denoiser)

    def _tell(self, job: Job, clock: Clock) -> list[Event | Failure]:
        """Events of one row after a pass: what became final, what is tentative, the end."""
        answer, reason, commit = job.news(clock)
        events: list[Event | Failure] = [] if commit is None else [commit]
        if reason is not None:
            job.check(answer, reason)
            return [*events, self._finish(job, answer, reason)]
        return [*events, job.draft(answer, clock)]

    def _finish(self, job: Job, answer: Sequence[int], reason: FinishReason) -> Finish:
        job.look(answer, reason, self.denoiser.spec, self._full)
        finish = job.finish(answer, reason, self.denoiser.spec)
        if job.route is not None:
            self.router.learn(job.route, job.measured)
        row = job.row
        state = self.denoiser.close_row(row.handle)
        job.closed = True
        if job.kept is not None and row.frozen:
            job.kept.keep(row.tokens[: row.frozen], state)
        self._jobs.pop(row.number, None)
        return finish

    def _fail(self, job: Job) -> Failure:
        """End a row by the error it holds."""
        row, error = job.row, job.row.error
        # The error's traceback leads back to the row.
        row.error = None
        self._drop(job)
        assert error is not None, "it holds one"
        return Failure(row.number, row.step, ending(row, error))

    def _drop(self, job: Job) -> None:
        """The row has ended."""
        self._ending.append(job)
        self._jobs.pop(job.row.number, None)

    def _sweep(self) -> None:
        """Close the rows that have ended."""
        while self._ending:
            job = self._ending[0]
            if not job.closed:
                # It is gone already if an interrupt came right behind its end; nobody is left who wants to know more.
                with suppress(Exception):
                    self.denoiser.close_row(job.row.handle)
                job.closed = True
            self._ending.popleft()

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """Events of one request until it finishes. Closing the iterator frees its row at once.

        The request is admitted, and its errors raised, when the first event is asked for.
        Other rows that are active take part in the same passes; their events are dropped,
        so do not stream while somebody else steps the engine.

        :raises PassError: if a pass fails, or the row in it.
        """
        number = self.admit(request)
        try:
            while number in self.active:
                for event in self.step():
                    if event.row == number:
                        yield or_raise(event)
        finally:
            self.cancel(number)

    def generate(self, requests: Sequence[Request]) -> list[Finish]:
        """Decode several requests together; results in the order of `requests`.

        :raises PassError: if a pass fails, or one of the rows in it.
        """
        numbers: list[int] = []
        done: dict[int, Finish] = {}
        try:
            for request in requests:
                numbers.append(self.admit(request))
            while set(numbers).intersection(self.active):
                for event in (or_raise(event) for event in self.step() if event.row in numbers):
                    if isinstance(event, Finish):
                        done[event.row] = event
        finally:
            for number in numbers:
                self.cancel(number)
        return [done[number] for number in numbers]
