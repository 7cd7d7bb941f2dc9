"""What each row of a batch must be: one constraint for all, or one a row, and in a row one a gap."""

from collections.abc import Sequence
from typing import Any
from typing import TypeAlias

from dllm_plugins.constraints.values import Constraint
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown

#: Of one row: of all of it, or in this order of its gaps, and of what is written behind the prompt.
OfRow: TypeAlias = Constraint | Sequence[Constraint | None] | None
#: Of a batch: of all rows, or of each.
OfBatch: TypeAlias = Constraint | Sequence[OfRow] | None


def of_rows(given: Any, rows: int, copies: int) -> list[OfRow]:
    """What each row of a batch is held to.

    :param given: a constraint, or a list of one for each prompt.
    :param rows: how many there are.
    :param copies: how many of them in succession answer one prompt (`num_return_sequences`).
    :raises OptionError: for anything else, and for a list of another length.
    """
    if not isinstance(given, list | tuple):
        _check(given, given)
        return [given] * rows
    if len(given) * copies != rows:
        raise OptionError(
            f"constraint is a list of {len(given)}, and there are {rows // copies} prompts; give one constraint for "
            f"all of them, or a list with one for each, None for a prompt whose answer may be anything"
        )
    for row in given:
        for item in row if isinstance(row, list | tuple) else (row,):
            _check(item, given)
    return [row for row in given for _ in range(copies)]


def of_gaps(row: OfRow, gaps: int, *, behind: bool) -> list[Constraint | None]:
    """What each gap of a prompt is held to, and last what is written behind it, if anything is.

    :param gaps: how many runs of masks the prompt has.
    :param behind: whether new tokens are written behind the prompt.
    :raises OptionError: for a list of another length.
    """
    count = gaps + behind
    if row is None or isinstance(row, Constraint):
        return [row] * count
    if len(row) != count:
        also = " and one for what is written behind it" if behind else ""
        raise OptionError(
            f"constraint has {len(row)} entries for a prompt with {gaps} gaps (runs of masks); give one for "
            f"each{also}, None where anything may stand"
        )
    return list(row)


def _check(item: Any, given: Any) -> None:
    if item is not None and not isinstance(item, Constraint):
        raise OptionError(
            f"constraint={shown(given)}: give a Regex, a JsonSchema or a Grammar, or a list of one for each prompt"
        )
