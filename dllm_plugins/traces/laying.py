"""What lays an answer out but is none of its tokens, such as the line breaks between the rows of a grid."""

from collections.abc import Sequence
from dataclasses import replace

from dllm_plugins.traces.frames import Cell
from dllm_plugins.traces.frames import Frame


def laid_out(frames: Sequence[Frame], text: str) -> tuple[Frame, ...]:
    """The same frames, in which every position has what the answer's text has behind it.

    As they are where the text is that of the tokens, or cannot be told apart by them.

    :param text: of the whole answer.
    """
    last = frames[-1].cells if frames else ()
    pieces = [cell.text for cell in last if not cell.special]
    behind = _behind(pieces, text)
    # Special tokens end an answer, if there are any; between its tokens places could not be told.
    if not any(behind) or any(cell.special for cell in last[: len(pieces)]):
        return tuple(frames)
    return tuple(
        replace(frame, cells=tuple(_with(cell, behind[at : at + 1]) for at, cell in enumerate(frame.cells)))
        for frame in frames
    )


def _with(cell: Cell, behind: Sequence[str]) -> Cell:
    return replace(cell, text=cell.text + behind[0]) if behind and behind[0] else cell


def _behind(pieces: Sequence[str], text: str) -> list[str]:
    """What stands behind each piece where the text holds them all in their order; nothing if it does not."""
    found, place = list[str](), 0
    for piece in pieces:
        begin = text.find(piece, place) if piece else -1
        if begin < 0:
            return []
        if found:
            found[-1] = text[place:begin]
        elif begin:
            return []
        found.append("")
        place = begin + len(piece)
    return found if place == len(text) else []
