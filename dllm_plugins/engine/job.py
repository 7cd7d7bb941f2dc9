"""A row with what the engine counts and tells about it: Commit, Draft, Finish."""

import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

from dllm_plugins.constraints.validation import check_answer
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.row import Row
from dllm_plugins.decoding.running import RunningProgram
from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.engine.choice import KIND as CHOICE
from dllm_plugins.engine.final import look_again
from dllm_plugins.engine.gap_texts import GapTexts
from dllm_plugins.engine.profile import TEXT
from dllm_plugins.engine.profile import Clock
from dllm_plugins.engine.slices import KIND as SLICE
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Finish
from dllm_plugins.events import FinishReason
from dllm_plugins.events import Repairs
from dllm_plugins.events import Stretch
from dllm_plugins.events import TokenLogprob
from dllm_plugins.events import Usage
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.modes.base import Sampler
from dllm_plugins.routing.measured import Measured
from dllm_plugins.routing.router import Route
from dllm_plugins.text.answer import AnswerText
from dllm_plugins.text.puzzles import GridLayout
from dllm_plugins.text.thinking import Divider


@dataclass(eq=False, slots=True)
class Job:
    """One row under way.

    :param gaps: those of its template, None without one.
    :param divider: tells what it thinks from what it says; None if it only says something.
    :param filled: the context leaves less room than `max_new_tokens` asks for.
    :param announced: tokens that a Commit has named.
    :param scanned: tokens of the answer among which there is no stop id.
    :param shared: passes in which it shared a call of the model, where that is told.
    :param closed: the denoiser's row is gone.
    :param unit: of a kept prefix, a multiple of so many tokens may be taken over.
    :param most_cached: of a kept prefix, most tokens that may be taken over; None for all.
    :param route: how its mode was chosen, if nobody named it, and `measured` how fast that is.
    :param model: of a pair, its other model, if that decodes the row.
    :param samplers: by mode, those that may take turns in it.
    :param resumed: another mode has just gone on, whose next pass has nothing to verify yet.
    :param layout: of a puzzle's answer; None for a text that is told as it stands.
    :param looked: what the model says of the answer where all of it is known, once it was asked.
    """

    row: Row
    running: RunningProgram
    text: AnswerText
    kept: KeptPrefixes | None
    began: float
    gaps: GapTexts | None = None
    filled: bool = False
    announced: int = 0
    scanned: int = 0
    forwarded: int = 0
    shared: int | None = None
    prefill: float = 0.0
    passes: dict[str, int] = field(default_factory=dict)
    parts: dict[str, float] | None = None
    closed: bool = False
    most_cached: int | None = None
    unit: int = 1
    looked: tuple[TokenLogprob, ...] = ()
    divider: Divider | None = None
    route: Route | None = None
    measured: Measured = field(default_factory=Measured)
    model: str = ""
    samplers: Mapping[str, Sampler] = field(default_factory=dict)
    resumed: bool = False
    layout: GridLayout | None = None

    def look(self, answer: Sequence[int], reason: FinishReason, spec: ModelSpec, denoiser: FullDenoiser) -> None:
        """Look at the final text once more, if that was asked for."""
        row = self.row
        if row.config.logprobs_at != "final":
            return
        told = row.generated[: len(answer) + (reason == "eos")] if self.gaps is None else row.generated
        self.looked, passes, rows = look_again(self.running.canvas, told, spec, denoiser)
        if self.gaps is not None:
            count = len(self.gaps.positions) + (self.gaps.stop_token is not None)
            places = (position - row.prompt for position in self._places(0, count))
            self.looked = tuple(self.looked[place] for place in places if place < len(told))
        self.forwarded += rows
        for kind, count in passes.items():
            self.passes[kind] = self.passes.get(kind, 0) + count

    def count(self, made: Pass, denoiser: FullDenoiser) -> None:
        """A pass was made."""
        for kind, count in denoiser.rounds(self.row.handle, made.kind).items():
            self.passes[kind] = self.passes.get(kind, 0) + count
        self.forwarded += made.forwarded
        shared = denoiser.shared(self.row.handle)
        if shared is not None:
            self.shared = (self.shared or 0) + shared
        if self.row.step == 0:
            self.prefill = time.perf_counter() - self.began
        self.row.step += made.kind not in (SLICE, CHOICE)

    def news(self, clock: Clock) -> tuple[list[int], FinishReason | None, Commit | None]:
        """The answer as it stands after a pass, why it ended, if it did, and what became final."""
        row, gaps = self.row, tuple[str, ...]()
        with clock.part(TEXT):
            if self.gaps is None:
                answer, reason = self._end()
            else:
                full = row.done or len(row.tokens) >= row.end
                answer, gaps = self.gaps.push(full)
                reason = self.gaps.reason if full else None
            new_text = self.text.push(answer, last=reason is not None)
            if self.text.stopped:
                answer, reason = answer[: self.text.tokens_used(answer)], "stop"
            thought = ""
            if self.divider is not None:
                thought, new_text = self.divider.push(self.text.text, last=reason is not None)
            if self.layout is not None:
                new_text = self.layout.push(self.text.text)
            sure = answer[: self.text.tokens_within(answer)] if reason is None else answer
        new = tuple(sure[self.announced :])
        said = self._said(self.announced, new)
        self.announced += len(new)
        told = new or new_text or thought or any(gaps)
        commit = Commit(row.number, row.step, new, new_text, said, gaps, thought) if told else None
        return answer, reason, commit

    @property
    def said(self) -> str:
        """The text that was handed out, without what the model thought."""
        if self.layout is not None:
            return self.layout.said
        return self.text.text if self.divider is None else self.divider.said

    def _places(self, begin: int, end: int) -> Sequence[int]:
        """Where on the canvas these tokens of the answer stand."""
        if self.gaps is None:
            return range(self.row.prompt + begin, self.row.prompt + end)
        return [*self.gaps.positions, self.gaps.behind][begin:end]

    def _said(self, begin: int, tokens: Sequence[int]) -> tuple[TokenLogprob, ...]:
        """What was said of these tokens of the answer when they were committed, if that was asked for."""
        row = self.row
        if row.said is None:
            return ()
        places = self._places(begin, begin + len(tokens))
        return tuple(row.said_at(position, token) for position, token in zip(places, tokens, strict=True))

    def draft(self, answer: Sequence[int], clock: Clock) -> Draft:
        """What stands behind the tokens that Commits have named: final ones held back, then the answer's canvas.

        A block may reach beyond the answer's end, and a suffix always does.
        """
        if self.gaps is not None:
            return self._gaps_draft(self.gaps, answer, clock)
        row, held = self.row, tuple(answer[self.announced :])
        tentative = self.running.canvas.tentative()
        room = min(len(tentative) - len(row.suffix), row.remaining)
        tentative, rest = tentative[:room], tentative[room:]
        known = self.running.canvas.guesses
        guesses = tuple(
            known.get(position) if token is None else token for position, token in enumerate(tentative, len(row.tokens))
        )
        with clock.part(TEXT):
            shown, thought = self.text.draft(answer, guesses), ""
            if self.divider is not None:
                thought, shown = self.divider.draft(self.text.text, shown)
            if self.layout is not None:
                shown = self.layout.draft(self.text.text, shown)
        sure: tuple[float | None, ...] = ()
        if row.said is not None:
            begin = len(row.tokens) - len(held)
            sure = tuple(map(self.running.canvas.confidence, range(begin, begin + len(held) + room)))
        guessed = held + guesses
        return Draft(row.number, row.step, held + tentative, shown, guessed, rest, sure, self.said, reasoning=thought)

    def _gaps_draft(self, gaps: GapTexts, answer: Sequence[int], clock: Clock) -> Draft:
        """The same of a template, whose gaps may have ended before their room was used."""
        row, canvas, done = self.row, self.running.canvas, self.announced
        with clock.part(TEXT):
            drafts = gaps.drafts(canvas)
            guesses = gaps.joined([gap.guesses for gap in drafts], int)
            shown = self.text.draft(answer, guesses[len(answer) :])
        tokens = gaps.joined([gap.tokens for gap in drafts], int)
        sure = () if row.said is None else gaps.joined([gap.confidences for gap in drafts], lambda _token: None)
        return Draft(
            row.number,
            row.step,
            tokens[done:],
            shown,
            guesses[done:],
            tuple(canvas.tokens[row.gaps[-1].stop :]),
            sure[done:],
            self.text.text,
            drafts,
        )

    def _repairs(self, length: int) -> Repairs | None:
        """What was changed of the answer's first tokens, with their texts."""
        found, read = self.row.repairs, self.text.tokenizer.decode
        if found is None:
            return None
        kept = [one for one in found.changed if one.position < length]
        told = tuple(replace(one, before=read([one.old]), after=read([one.new])) for one in kept)
        return replace(found, changed=told)

    def _end(self) -> tuple[list[int], FinishReason | None]:
        """The answer without what lies behind its end, and why it ended, if it did."""
        row = self.row
        answer = row.generated[: row.config.max_new_tokens]
        for index in range(self.scanned, len(answer)):
            if answer[index] in row.stop_ids:
                return answer[:index], "eos"
        self.scanned = len(answer)
        if self.layout is not None and len(answer) == self.layout.puzzle.length:
            return answer, "eos"
        if len(answer) == row.config.max_new_tokens:
            return answer, "context" if self.filled else "length"
        return answer, "eos" if row.done else None

    def check(self, answer: Sequence[int], reason: FinishReason) -> None:
        """Make sure that a complete answer is what was asked for.

        :raises AnswerError: if it is not.
        """
        if self.gaps is None:
            check_answer(self.said, self.row.config.constraint, reason)
        else:
            self.gaps.check(answer)

    def finish(self, answer: Sequence[int], reason: FinishReason, spec: ModelSpec) -> Finish:
        """The end of the row: `answer` and its figures."""
        row, filled = self.row, () if self.gaps is None else self.gaps.filled()
        if self.divider is not None:
            self.divider.push(self.text.text, last=True)
        if self.layout is not None:
            self.layout.push(self.text.text)
        tentative = self.running.canvas.tentative()
        # Of the canvas behind the answer; the suffix was given.
        committed = tentative[: len(tentative) - len(row.suffix)]
        written = len(row.generated) + sum(token is not None for token in committed)
        usage = Usage(
            prompt_tokens=row.prompt if self.gaps is None else self.gaps.fixed,
            cached_tokens=row.cached,
            useful_tokens=sum(len(gap.tokens) for gap in filled) if filled else len(answer),
            canvas_tokens=written - len(row.given) + row.given.count(spec.mask_id),
            passes=self.passes,
            rows=self.forwarded,
            seconds=time.perf_counter() - self.began,
            prefill_seconds=self.prefill,
            mode=str(row.config.mode),
            cache=row.cache or spec.cache,
            numerics=spec.numerics,
            seed=row.noise.seed if row.config.temperature > 0 or row.noise.drawn else row.config.seed,
            weights=spec.weights,
            parts=self.parts,
            drafts=row.drafts,
            shared_passes=self.shared,
            route=None if self.route is None else str(self.route),
            model=self.model or spec.target or None,
            repairs=self._repairs(len(answer)),
            stretches=None if row.stretches is None else tuple(_told(row.stretches, len(answer))),
            reasoning_tokens=None if self.divider is None else self.divider.tokens(self.text.tokenizer, answer),
            verdict=None if self.layout is None else self.layout.puzzle.verdict(self.text.text),
        )
        if self.gaps is not None:
            stop_token = self.gaps.stop_token
        else:
            ended = reason == "eos" and row.generated[len(answer) : len(answer) + 1]
            stop_token = ended[0] if ended and (self.layout is None or ended[0] in row.stop_ids) else None
        told = (*answer, *(() if stop_token is None else (stop_token,)))
        logits = None
        if row.logits is not None:
            logits = tuple(row.logits.get(position) for position in self._places(0, len(told)))
        rest = () if filled else (*row.generated[len(answer) :], *tentative)
        said = None if row.said is None else self.looked or self._said(0, told)
        if self.gaps is not None and said is not None:
            filled = self.gaps.filled(said)
        thought = "" if self.divider is None else self.divider.thought
        return Finish(
            row.number,
            row.step,
            reason,
            tuple(answer),
            self.said,
            usage,
            stop_token,
            logits,
            rest,
            said,
            filled,
            thought,
        )


def _told(stretches: Sequence[Stretch], length: int) -> list[Stretch]:
    """Stretches of an answer of so many tokens, each to where the next one begins."""
    ends = [*(one.begin for one in stretches[1:]), length]
    return [
        replace(one, end=min(end, length))
        for one, end in zip(stretches, ends, strict=True)
        if one.begin < min(end, length)
    ]
