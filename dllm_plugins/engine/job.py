"""A row with what the engine counts and tells about it: Commit, Draft, Finish."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.row import Row
from dllm_plugins.decoding.running import RunningProgram
from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.engine.final import look_again
from dllm_plugins.engine.profile import TEXT
from dllm_plugins.engine.profile import Clock
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Finish
from dllm_plugins.events import FinishReason
from dllm_plugins.events import TokenLogprob
from dllm_plugins.events import Usage
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.text.answer import AnswerText


@dataclass(eq=False, slots=True)
class Job:
    """One row under way.

    :param filled: the context leaves less room than `max_new_tokens` asks for.
    :param announced: tokens that a Commit has named.
    :param scanned: tokens of the answer among which there is no stop id.
    :param closed: the denoiser's row is gone.
    :param looked: what the model says of the answer where all of it is known, once it was asked.
    """

    row: Row
    running: RunningProgram
    text: AnswerText
    kept: KeptPrefixes | None
    began: float
    filled: bool = False
    announced: int = 0
    scanned: int = 0
    forwarded: int = 0
    prefill: float = 0.0
    passes: dict[str, int] = field(default_factory=dict)
    parts: dict[str, float] | None = None
    closed: bool = False
    looked: tuple[TokenLogprob, ...] = ()

    def look(self, answer: Sequence[int], reason: FinishReason, spec: ModelSpec, denoiser: FullDenoiser) -> None:
        """Look at the final text once more, if that was asked for."""
        row = self.row
        if row.config.logprobs_at != "final":
            return
        told = row.generated[: len(answer) + (reason == "eos")]
        self.looked, passes, rows = look_again(self.running.canvas, told, spec, denoiser)
        self.forwarded += rows
        for kind, count in passes.items():
            self.passes[kind] = self.passes.get(kind, 0) + count

    def count(self, made: Pass, denoiser: FullDenoiser) -> None:
        """A pass was made."""
        for kind, count in denoiser.rounds(self.row.handle, made.kind).items():
            self.passes[kind] = self.passes.get(kind, 0) + count
        self.forwarded += sum(len(segment.tokens) for segment in made.segments)
        if self.row.step == 0:
            self.prefill = time.perf_counter() - self.began
        self.row.step += 1

    def news(self, clock: Clock) -> tuple[list[int], FinishReason | None, Commit | None]:
        """The answer as it stands after a pass, why it ended, if it did, and what became final."""
        row = self.row
        answer, reason = self._end()
        with clock.part(TEXT):
            new_text = self.text.push(answer, last=reason is not None)
            if self.text.stopped:
                answer, reason = answer[: self.text.tokens_used(answer)], "stop"
            sure = answer[: self.text.tokens_within(answer)] if reason is None else answer
        new = tuple(sure[self.announced :])
        said = self._said(self.announced, new)
        self.announced += len(new)
        return answer, reason, Commit(row.number, row.step, new, new_text, said) if new or new_text else None

    def _said(self, begin: int, tokens: Sequence[int]) -> tuple[TokenLogprob, ...]:
        """What was said of these tokens of the answer when they were settled, if that was asked for."""
        row = self.row
        if row.said is None:
            return ()
        return tuple(row.said_at(position, token) for position, token in enumerate(tokens, row.prompt + begin))

    def draft(self, answer: Sequence[int], clock: Clock) -> Draft:
        """What stands behind the tokens that Commits have named: final ones held back, then the answer's canvas.

        A block may reach beyond the answer's end, and a suffix always does.
        """
        row, held = self.row, tuple(answer[self.announced :])
        tentative = self.running.canvas.tentative()
        room = min(len(tentative) - len(row.suffix), row.remaining)
        tentative, rest = tentative[:room], tentative[room:]
        known = self.running.canvas.guesses
        guesses = tuple(
            known.get(position) if token is None else token for position, token in enumerate(tentative, len(row.tokens))
        )
        with clock.part(TEXT):
            shown = self.text.draft(answer, guesses)
        sure: tuple[float | None, ...] = ()
        if row.said is not None:
            begin = len(row.tokens) - len(held)
            sure = tuple(map(self.running.canvas.confidence, range(begin, begin + len(held) + room)))
        return Draft(row.number, row.step, held + tentative, shown, held + guesses, rest, sure, self.text.text)

    def _end(self) -> tuple[list[int], FinishReason | None]:
        """The answer without what lies behind its end, and why it ended, if it did."""
        row = self.row
        answer = row.generated[: row.config.max_new_tokens]
        for index in range(self.scanned, len(answer)):
            if answer[index] in row.stop_ids:
                return answer[:index], "eos"
        self.scanned = len(answer)
        if len(answer) == row.config.max_new_tokens:
            return answer, "context" if self.filled else "length"
        return answer, "eos" if row.done else None

    def finish(self, answer: Sequence[int], reason: FinishReason, spec: ModelSpec) -> Finish:
        """The end of the row: `answer` and its figures."""
        row = self.row
        tentative = self.running.canvas.tentative()
        # Of the canvas behind the answer; the suffix was given.
        committed = tentative[: len(tentative) - len(row.suffix)]
        usage = Usage(
            prompt_tokens=row.prompt,
            cached_tokens=row.cached,
            useful_tokens=len(answer),
            canvas_tokens=len(row.generated) + sum(token is not None for token in committed),
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
        )
        stop_token = row.generated[len(answer)] if reason == "eos" and len(answer) < len(row.generated) else None
        logits, length = None, len(answer) + (stop_token is not None)
        if row.logits is not None:
            logits = tuple(row.logits.get(row.prompt + index) for index in range(length))
        rest = (*row.generated[len(answer) :], *tentative)
        said = None if row.said is None else self.looked or self._said(0, row.generated[:length])
        return Finish(
            row.number, row.step, reason, tuple(answer), self.text.text, usage, stop_token, logits, rest, said
        )
