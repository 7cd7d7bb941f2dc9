"""Paths as puzzles: what is read, what is refused, how answers are shown and judged."""

import pytest

from dllm_plugins.errors import RequestError
from dllm_plugins.presets.routes import RouteReader
from dllm_plugins.text.puzzles import GridLayout

READ = RouteReader(3)
#: Two paths of three nodes, home, park, lake and shop, park, school, that cross in the park.
ASKED = "home>park shop>park park>school park>lake ? home lake"


@pytest.mark.parametrize(
    "text",
    [
        ASKED,
        ASKED.replace(">", " > "),
        ASKED.replace(" park", ", park"),
        ASKED.replace(" ", "\n"),
        f"  {ASKED} =\n",
        ASKED.replace(" ? ", "?"),
    ],
)
def test_edges_are_written_in_several_ways(text: str) -> None:
    """It is the same question, with numbers in the order in which nodes are named."""
    assert READ(text).prompt == "0> 1 2> 1 1> 3 1> 4 ? 0 4 ="
    assert READ(text).length == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "'hello' is no question for a path; write edges"),
        ("", "'' is no question"),
        ("? home lake", "is no question"),
        (ASKED.replace("home>park", "home-park"), "is no question"),
        (ASKED.replace("? home lake", "? home"), "'home' behind the . is not a start and a goal"),
        (ASKED.replace("? home lake", "? home park lake"), "'home park lake' behind the . is not a start and a goal"),
        (ASKED.replace("? home", "? hell"), "'hell' is at no edge"),
        (ASKED.replace("home>park ", "", 1).replace("? home", "? shop"), "3 edges and 4 nodes.*give 4 edges between 5"),
        (ASKED.replace("? home lake", "? lake home"), "no path leads from lake to home"),
        (ASKED.replace("? home lake", "? park lake"), "the path from park to lake has 2 nodes.*trained for 3"),
        (ASKED.replace("? home lake", "? home home"), "the path from home to home has 1 nodes"),
    ],
)
def test_what_is_no_question_is_refused(text: str, words: str) -> None:
    """Each with what is wrong with it."""
    with pytest.raises(RequestError, match=words):
        READ(text)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("0 1 4", "right"),
        ("0 1 3", "wrong: it ends at school, not at lake"),
        ("2 1 4", "wrong: it begins at shop, not at home"),
        ("0 4", "wrong: no edge leads from home to lake"),
        ("0 1 9", "wrong: no edge leads from park to 9"),
        ("0 1", "unfinished: 2 of 3 nodes"),
        ("", "unfinished: 0 of 3 nodes"),
    ],
)
def test_answers_are_judged(answer: str, verdict: str) -> None:
    """Right, or the first thing that is wrong."""
    assert READ(ASKED).verdict(answer) == verdict


def test_a_node_is_visited_once() -> None:
    """A circle on the way is no path, though its edges are there."""
    read = RouteReader(4)("a>b b>c c>b c>d d>e f>g ? a d")
    assert read.verdict("0 1 2 3") == "right"
    assert read.verdict("0 1 2 1 2 3") == "wrong: it visits b twice"


def test_an_answer_has_the_names_that_were_asked_with() -> None:
    """While it grows, too; what is open stays open."""
    layout = GridLayout(READ(ASKED))
    assert layout.draft("", "0 · 4") == "home · lake"
    assert (layout.push("0"), layout.draft("0", " · 4")) == ("home", " · lake")
    assert layout.push("0 1 4") == " park lake"
    assert layout.said == "home park lake"
