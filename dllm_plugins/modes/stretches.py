"""One stretch of an answer: a mode of the row's own model writes it, or the other model of a pair.

Own modes go on in the row's own cache: what the last one wrote is forwarded once, as ordinary clean tokens. Each sees
a row of its own, whose prompt is all that is final and whose answer is the stretch.
"""

from collections.abc import Sequence
from dataclasses import replace

from dllm_plugins.config import COMMON_OPTIONS
from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.guest import Guest
from dllm_plugins.modes.base import Sampler

#: Of a pass in which the other model writes, and of the first one of a later stretch: what others wrote is read there.
GUEST, TURN = "guest", "turn"


def config_of(config: SamplingConfig, sampler: Sampler, mode: str, count: int) -> SamplingConfig:
    """The options of a stretch: those of the request that its mode honours."""
    dropped = config.given().keys() - COMMON_OPTIONS - sampler.options | {"preset_options"}
    return config.model_copy(update={**dict.fromkeys(dropped), "mode": mode, "max_new_tokens": count})


class Writing:
    """A row's stretches, one after another.

    :param begun: whether there was a stretch before; the pass that ended it is counted after the next has begun.
    :param keep: tokens of the last pass's first segment that are still to join the prefix.
    :param entropy: of the distribution that the last token was drawn from, in nats; None if nobody knows.
    """

    def __init__(self, canvas: Canvas, spec: ModelSpec) -> None:
        self.canvas = canvas
        self.row = canvas.row
        self.spec = spec
        self.keep = 0
        self.begun = False
        self.entropy: float | None = None

    def own(self, sampler: Sampler, config: SamplingConfig) -> Dialogue[None]:
        """A mode of the row's own model."""
        row = self.row
        part = replace(row, prompt=len(row.tokens), config=config, requested=config.max_new_tokens, drafts=None)
        # Noise is keyed on the passes of the stretch: how many came before may depend on what passes cost.
        part.frozen, part.step, first = row.frozen + self.keep, 0, row.step + self.begun
        self.begun = True
        inner = Canvas(part, self.spec)
        inner.restraints = self.canvas.restraints.of(part)
        program = sampler.program(inner, self.spec)
        wanted = next(program)
        assert isinstance(wanted, Pass), "a program begins with a pass"
        kind = TURN if first else wanted.kind
        wanted, known = replace(wanted, kind=kind, keep=wanted.keep + self.keep), dict[str, int]()
        while True:
            _follow(self.canvas, inner)
            answers = yield wanted
            part.frozen, part.step, part.company, final = row.frozen, row.step - first, row.company, len(row.tokens)
            try:
                wanted = program.send(answers)
            except StopIteration:
                self.keep = 0
                return
            finally:
                known = _counted(row, part, known)
            self._look(answers, len(row.tokens) - final)
            if isinstance(wanted, Pass) and len(row.tokens) >= inner.end:
                # The stretch's last token predicts the next one, so it is always forwarded.
                self.keep = max(0, min(wanted.keep, len(row.tokens) - 1 - row.frozen))
                return

    def _look(self, answers: Sequence[Answer], count: int) -> None:
        """How sure the model was of the last of `count` new tokens, where it wrote them from left to right."""
        if count and answers and answers[0].drawn:
            entropies = answers[0].entropy
            self.entropy = float(entropies[min(count, len(entropies)) - 1])

    def guest(self, config: SamplingConfig) -> Dialogue[str]:
        """The other model; why it has ended, see :class:`Guest`."""
        row, canvas = self.row, self.canvas
        # Stop strings may span stretches, and looking at the final text is the row's own affair.
        config = config.model_copy(update={"stop": (), "logprobs_at": None, "stats": False, "seed": row.noise.seed})
        stops = None if row.stop_ids == self.spec.stop_ids else row.stop_ids
        guest = Guest(tuple(row.tokens), row.prompt, config, row.remaining - config.max_new_tokens, stops)
        count, self.begun = 0, True
        canvas.cut(len(row.tokens))
        while guest.ended is None:
            yield Pass((Segment(row.handle, (), (), guest=guest),), GUEST, keep=self.keep, asks=())
            self.keep = 0
            if guest.error is not None:
                raise guest.error
            taken = self._take(guest, count)
            if taken < len(guest.said) - count:
                return "what it said next does not fit the constraint, the room or the vocabulary"
            count += taken
        return guest.ended

    def _take(self, guest: Guest, begin: int) -> int:
        """Put what is new of a stretch behind the final text, as far as it may stand there; how many tokens."""
        row, canvas, count = self.row, self.canvas, 0
        canvas.cut(len(row.tokens))
        for place in range(begin, len(guest.said)):
            position, token = len(row.tokens), guest.said[place]
            if not row.remaining or not self._may_stand(position, token):
                break
            canvas.tokens.append(token)
            row.note(position, token, None)
            if row.said is not None and place < len(guest.logprobs):
                row.said[position] = guest.logprobs[place]
            canvas.release(position + 1)
            count += 1
        _show(canvas, guest.drafted[: row.remaining])
        return count

    def _may_stand(self, position: int, token: int) -> bool:
        limits = self.row.limits
        if not 0 <= token < self.row.vocabulary:
            return False
        return limits is None or bool(limits.next_masks(self.canvas.tokens, [position])[0, token])


def _counted(row: Row, part: Row, known: dict[str, int]) -> dict[str, int]:
    """Add what a stretch has counted of drafts since to the row's figures; what it has counted in all."""
    found = dict(part.drafts or {})
    if found:
        row.drafts = row.drafts or {}
        for name, count in found.items():
            row.drafts[name] = row.drafts.get(name, 0) + count - known.get(name, 0)
    return found


def _follow(canvas: Canvas, inner: Canvas) -> None:
    """The row's canvas holds what that of a stretch holds."""
    canvas.tokens, canvas.guesses, canvas.sure, canvas.shown = inner.tokens, inner.guesses, inner.sure, inner.shown


def _show(canvas: Canvas, drafted: Sequence[int | None]) -> None:
    """Show guesses behind the final text, None where open, on positions that stay open."""
    end = len(canvas.row.tokens)
    canvas.tokens[end:] = [canvas.mask] * len(drafted)
    canvas.guesses = {position: token for position, token in enumerate(drafted, end) if token is not None}
    canvas.shown = None
