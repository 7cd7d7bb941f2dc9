"""A setting of a reference sampler as requests to our public API."""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.request import Request

if TYPE_CHECKING:
    from dllm_plugins.conformance.run import RowTrace


@dataclass(frozen=True)
class Play:
    """How to run a setting, and how the reference lays out what comes out.

    :param requests: one per row.
    :param load: options of `load_model` beside those every case needs.
    :param left: tokens the reference puts in front of each row, its padding.
    :param width: how long the reference makes every row, with `rest` behind what was generated.
    :param multiple: rows that ended early are filled up to a multiple of this only.
    :param untrimmed: the reference returns what stands behind the end of the text, too.
    :param answer_only: the reference returns new tokens only.
    :param initial: each row's canvas before the first pass, where the sampler lays it out by itself.
    :param stored: a kind of our passes; behind such a one the reference may make another that only fills a cache.
    :param arrange: lays out the traces of all rows as the reference does, where one row alone does not tell.
    :param rows_go_on: the reference goes on with rows that have ended, and throws that away.
    :param together: the reference goes on with every row until the last one has ended.
    :param per_change: the reference makes passes that wait for slower rows or fill a cache: count one per change.
    :param cuts: the reference records all rows up to the block that the batch is at: of a row whose
        prompt goes on behind it, a beginning of the prompt only.
    :param note: what differs on purpose, for the report.
    """

    requests: Sequence[Request]
    load: dict[str, Any] = field(default_factory=dict)
    left: Sequence[Sequence[int]] = ()
    width: int | None = None
    rest: int | None = None
    multiple: int | None = None
    untrimmed: bool = False
    answer_only: bool = False
    stored: str | None = None
    together: bool = False
    initial: Sequence[Sequence[int]] = ()
    arrange: "Callable[[Sequence[RowTrace]], list[RowTrace]] | None" = None
    rows_go_on: bool = False
    per_change: bool = False
    cuts: bool = False
    note: str = ""

    def lay_out(self, row: int, text: Sequence[int], *, whole: bool) -> list[int]:
        """One row as the reference writes it.

        :param text: prompt and answer.
        :param whole: a canvas, which always holds the prompt.
        """
        prompt = 0 if whole or not self.answer_only else len(self.requests[row].tokens)
        found = [*(self.left[row] if self.left else ()), *text[prompt:]]
        if self.width is not None and self.rest is not None:
            width = self.width if self.multiple is None else -(-len(found) // self.multiple) * self.multiple
            found += [self.rest] * (min(width, self.width) - len(found))
        return found

    def reached(self, row: int, canvas: Sequence[int]) -> bool:
        """Whether a canvas of the reference, its padding taken off, is more than a beginning of the row's prompt."""
        return not self.cuts or list(canvas) != list(self.requests[row].tokens)[: len(canvas)]

    def own(self, row: int, canvas: Sequence[int]) -> list[int]:
        """A row of the reference's canvas without its padding on the left."""
        return list(canvas[len(self.left[row]) if self.left else 0 :])


Translate: TypeAlias = Callable[[Case, Setting], Play]


def whole_steps(each: int, new: int, length: int) -> int:
    """All passes of an answer of `new` tokens whose blocks get `each`; those beyond one a position change nothing."""
    return min(each, length, new) * -(-new // length)


def seen(setting: Setting) -> list[list[int]]:
    """Prompts as the reference's model sees them: padding that no attention mask hides is part of them."""
    padded, mask = setting.inputs.get("input_ids"), setting.inputs.get("attention_mask")
    return setting.prompts if mask or not padded else [list(row) for row in padded]


def left_padding(setting: Setting, prompts: Sequence[Sequence[int]] | None = None) -> list[list[int]]:
    """What the reference received in front of each of these prompts; the unpadded ones if not given."""
    prompts = setting.prompts if prompts is None else prompts
    padded = setting.inputs.get("input_ids") or prompts
    return [list(row[: len(row) - len(prompt)]) for row, prompt in zip(padded, prompts, strict=True)]
