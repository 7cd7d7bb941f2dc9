"""Does a question need a tool? Ways to find it out by what the default model says, before it answers.

Twelve tools, and fifty questions of which half need one (`tool_questions.py`). Each is asked with one tool, which it
needs or is near to, and with four and all twelve. A score above 0 means a call. What the engine does is the row
`call, over "Hi."`: how much likelier the text that begins a call is behind the question than behind that message.

    python benchmarks/tool_choice.py --json tool-choice.json
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import torch

from dllm_plugins import Model
from dllm_plugins import load_model
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.tools.choosing import IDLE
from dllm_plugins.tools.tool import Tool
from progress import keep
from progress import show
from progress import track
from tool_questions import NEEDED
from tool_questions import TOOLS
from tool_questions import UNNEEDED

#: Messages that ask for nothing, the second and third as in the paper on contextual calibration (arXiv 2102.09690).
IDLES = (IDLE, "N/A", "[MASK]", "Thank you.", "Hello!", "OK.")
SETS = (1, 4, 12)
_CHECK = "Function: {}: {}\nRequest: {}\nDoes answering the request need the function? Answer yes or no."


@dataclass(frozen=True)
class Reader:
    """What a model says of texts."""

    model: Model

    @cached_property
    def mark(self) -> list[int]:
        """What a call begins with."""
        return self.ids(self.model.tool_habit().form.before)

    def ids(self, text: str) -> list[int]:
        """Of a text inside another."""
        found: list[int] = self.model.tokenizer.encode(text, add_special_tokens=False)
        return found

    def prompt(self, question: str, tools: Sequence[Tool] = ()) -> list[int]:
        """Of a chat."""
        return self.model.encode_chat([{"role": "user", "content": question}], tools)

    def said(self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """The log-probabilities of each text's tokens behind its prompt; what prompts have in common is read once."""
        denoiser, most = self.model.denoiser, min(map(len, prompts)) - 1
        common = next((n for n in range(most) if len({prompt[n] for prompt in prompts}) > 1), most)
        row, found = denoiser.open_row(), []
        try:
            denoiser.forward([Segment(row, prompts[0][:common], range(common))])
            denoiser.freeze(row, common)
            for prompt, text in zip(prompts, texts, strict=True):
                tokens = [*prompt[common:], *text[:-1]]
                wanted = range(len(prompt) - common - 1, len(tokens))
                places = range(common, common + len(tokens))
                [hidden] = denoiser.forward([Segment(row, tokens, places, wanted=wanted)])
                said = denoiser.logits(hidden).float().log_softmax(-1)
                found.append(said[torch.arange(len(text)), torch.tensor(text)].tolist())
        finally:
            denoiser.close_row(row)
        return found


Scores = dict[str, float]


def scores_of(reader: Reader, tools: Sequence[Tool], questions: Sequence[str]) -> list[Scores]:
    """Of each question, by the names of the ways."""
    prompts = [reader.prompt(text, tools) for text in (*questions, *IDLES)]
    found = reader.said(prompts, [reader.mark] * len(prompts))
    whole, idle = [sum(said) for said in found], dict(zip(IDLES, map(sum, found[len(questions) :]), strict=True))
    first = found[len(questions)][0]
    scores = []
    for place in range(len(questions)):
        own: Scores = {f'call, over "{text}"': whole[place] - said for text, said in idle.items()}
        own["call, over the mean of these two first"] = whole[place] - (idle[IDLES[0]] + idle[IDLES[1]]) / 2
        own[f'first token of a call, over "{IDLE}"'] = found[place][0] - first
        scores.append({"call, by itself": whole[place], **own})
    return scores


def checks_of(reader: Reader, tool: Tool, questions: Sequence[str]) -> list[Scores]:
    """Of each question, by the ways that look at one tool."""
    yes, no = reader.ids("Yes"), reader.ids("No")
    prompts = [reader.prompt(_CHECK.format(tool.name, tool.description, text)) for text in (*questions, "N/A")]
    found = reader.said([p for p in prompts for _ in "yn"], [yes, no] * len(prompts))
    odds = [found[place][0] - found[place + 1][0] for place in range(0, len(found), 2)]
    texts = [reader.ids(f" {text}") for text in questions]
    about = f"A user asks the assistant to use the function {tool.name} ({tool.description[:-1].lower()}):"
    with_tool, without = (
        [sum(said) for said in reader.said([reader.ids(before)] * len(texts), texts)]
        for before in (about, "A user asks the assistant a question that it can answer by itself:")
    )
    return [
        {
            "yes or no, by itself": own,
            'yes or no, over "N/A"': own - odds[-1],
            "the question given the tool, over given none": given - free,
        }
        for own, given, free in zip(odds, with_tool, without, strict=False)
    ]


@dataclass(frozen=True, slots=True)
class Row:
    """One way, with so many tools.

    :param auc: the share of pairs of a question that needs a tool and one that needs none that it puts in order.
    :param called: questions that need a tool and score above 0, and `wrongly`, those that need none; of 25 each.
    """

    score: str
    tools: int
    auc: float
    called: int
    wrongly: int

    def __str__(self) -> str:
        """A line of the table."""
        return f"{self.score:<46} {self.tools:>5} {self.auc:>6.2f} {self.called:>6} {self.wrongly:>8}"


def rows_of(count: int, found: Sequence[tuple[bool, Scores]]) -> list[Row]:
    """What each way makes of all questions."""
    rows = []
    for name in found[0][1]:
        needed = [scores[name] for wanted, scores in found if wanted]
        others = [scores[name] for wanted, scores in found if not wanted]
        pairs = [(one > other) + (one == other) / 2 for one in needed for other in others]
        above: list[int] = [sum(score > 0 for score in part) for part in (needed, others)]
        rows.append(Row(name, count, sum(pairs) / len(pairs), *above))
    return rows


def measured(reader: Reader, count: int) -> list[Row]:
    """All ways with so many tools."""
    names, found = list(TOOLS), list[tuple[bool, Scores]]()
    for place, name in track(list(enumerate(names)), f"{count} tools"):
        others = [TOOLS[names[(place + 3 * step) % len(names)]] for step in range(count)] if count < len(names) else []
        questions = (*NEEDED[name], *UNNEEDED[name])
        scores = scores_of(reader, others or list(TOOLS.values()), questions)
        if count == 1:
            scores = [a | b for a, b in zip(scores, checks_of(reader, TOOLS[name], questions), strict=True)]
        found += [(text in NEEDED[name], own) for text, own in zip(questions, scores, strict=True)]
    return rows_of(count, found)


@click.command(help=__doc__)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--model", "name", default="dllm", show_default=True, help="One whose template says nothing of tools.")
def main(file: Path | None, name: str) -> None:
    """Print the table."""
    reader, rows = Reader(load_model(name)), list[Row]()
    show(f"{'score':<46} tools    AUC called  wrongly")
    for count in SETS:
        for row in measured(reader, count):
            rows.append(row)
            show(str(row))
            keep(rows, file)


if __name__ == "__main__":
    main()
