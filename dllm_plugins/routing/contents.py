"""What a request is about, as far as it tells how fast modes are: from the request alone, by its form and its words.

Drafts are accepted more often where the words of a prompt come back, and in code, than in talk. A kind needs not be
right: it only keeps apart what was measured, and names what rules may name.
"""

import re
from collections.abc import Sequence
from typing import Literal

#: `copying`: words of the prompt come back, as in extraction, rewriting and corrections; `code`; `arithmetic`;
#: `puzzle`: grids, riddles and plans; `open`: everything else.
Content = Literal["copying", "code", "arithmetic", "puzzle", "open"]
#: Only so many tokens and characters at the end of a prompt are looked at.
MOST_TOKENS, _MOST_CHARACTERS = 1024, 4096
#: Where more of all runs of three tokens than this stood there before, an answer is likely to go on like that.
_REPEATING, _TELLING = 0.25, 48
_CELLS = frozenset("0123456789._")
_GRID = frozenset("0123456789._|-+ ")
_DIGITS = frozenset("0123456789")
_PUZZLE = re.compile(r"\b(sudoku|crossword|puzzle|riddle|countdown|itinerary|timetable|plan (a|an|my|the|out))\b", re.I)
_CODE = re.compile(
    r"```|^[ \t]*(def|class|import|from|return|for|while|if|fn|let|const|var|public|#include)\b.*[:;{(][ \t]*$|"
    r"\b(python|javascript|typescript|java|rust|golang|sql|html|css|bash|regex|in C)\b|C\+\+|C#",
    re.IGNORECASE | re.MULTILINE,
)
_AGAIN = re.compile(
    r"\b(copy|repeat|extract|quote|rewrite|rephrase|correct|proofread|edit|reformat|translate|summari[sz]e)\b", re.I
)
#: A quotation, or what stands behind a colon: enough of it that an answer may take from it.
_MATERIAL = re.compile(r"[\"'“«„][^\"“”«»„]{40,}[\"'”»“]|:\s*\S.{39,}", re.DOTALL)
_LONG_QUOTE = re.compile(r"[\"“«„][^\"“”«»„]{160,}[\"”»“]", re.DOTALL)
_FIGURES = re.compile(r"\d\s*[+*×÷^=]\s*\d|\d\s+[-/]\s+\d|\b(how (many|much)|calculate|times \d|percent)\b", re.I)


def content_of(tokens: Sequence[int], text: str) -> Content:
    """What a prompt is about.

    :param text: of the tokens; empty where nobody knows it, and only what repeats is seen.
    """
    text = text[-_MOST_CHARACTERS:]
    if _PUZZLE.search(text) or _has_grid(text):
        return "puzzle"
    if _CODE.search(text):
        return "code"
    if _LONG_QUOTE.search(text) or (_AGAIN.search(text) and _MATERIAL.search(text)) or _repeats(tokens):
        return "copying"
    return "arithmetic" if _FIGURES.search(text) else "open"


def _has_grid(text: str) -> bool:
    """Whether three lines in a row, or one long word, hold nothing but figures and what stands for an empty place."""
    if any(len(word) > 15 and _CELLS.issuperset(word) and _mixed(word) for word in text.split()):
        return True
    run = 0
    for line in text.splitlines():
        run = run + 1 if len(line.strip()) > 2 and _GRID.issuperset(line) and not _DIGITS.isdisjoint(line) else 0
        if run == 3:
            return True
    return False


def _mixed(word: str) -> bool:
    """Whether it has both figures and places that are empty."""
    return not _DIGITS.isdisjoint(word) and sum(word.count(empty) for empty in "._") > 3


def _repeats(tokens: Sequence[int]) -> bool:
    """Whether much of a prompt stood in it before."""
    runs = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return len(tokens) >= _TELLING and len(set(runs)) < (1 - _REPEATING) * len(runs)
