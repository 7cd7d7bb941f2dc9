"""Training text: a base's own answers, in files of some hundred prompts each, made by any number of processes.

The denoiser is trained to guess what the unchanged base would say next, so its training text is made by that base and
needs no outside data. A file is there when it is whole; what is missing is made by whoever comes next.
"""

import gzip
import json
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dllm_plugins.denoisers.base_mark import KEY
from dllm_plugins.denoisers.base_mark import check_embedding
from dllm_plugins.denoisers.base_mark import check_shape
from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.reading import read_object
from dllm_plugins.files.whole import alone
from dllm_plugins.files.whole import whole
from dllm_plugins.training.answers import BaseAnswer
from dllm_plugins.training.answers import BaseAnswers
from dllm_plugins.training.answers import Wishes
from dllm_plugins.training.base import FrozenBase
from dllm_plugins.training.base import model_of
from dllm_plugins.training.prompts import varied_prompts

#: Shorter answers teach nothing.
SHORTEST_ANSWER = 4
#: In the folder: whose answers these are, and how they were asked for.
ABOUT = "corpus.json"


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder of text and how it is made.

    :param prompts: of one file.
    :param seed: of the prompts.
    """

    folder: Path
    wishes: Wishes = Wishes()  # noqa: RUF009
    prompts: int = 128
    seed: int = 2026

    def files(self) -> list[Path]:
        """The files that are whole."""
        return sorted(self.folder.glob("answers-*.jsonl.gz"))

    def tokens(self) -> int:
        """Tokens of all answers so far."""
        return sum(_tokens(path) for path in self.files())

    def make(self, base: FrozenBase, tokens: int, say: Callable[[str], None] = print) -> int:
        """Make files until there are `tokens` tokens of answers; go on with what is there.

        :param say: told after each file how many tokens there are, and how fast they came.
        :returns: how many there are.
        :raises CheckpointError: for a folder of another base's answers, or made in another way.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check(base)
        answers, chats = BaseAnswers(model_of(base), self.wishes), enumerate(varied_prompts(self.seed))
        there, number = self.tokens(), 0
        while there < tokens:
            some = list(islice(chats, self.prompts))
            path = self.folder / f"answers-{number:05}.jsonl.gz"
            began, spent = time.monotonic(), time.process_time()
            if not path.exists() and (made := _written(path, answers, some)):
                there = self.tokens()
                passed, used = time.monotonic() - began, time.process_time() - spent
                rates = f"{made / used:.0f} a CPU-second, {made / passed:.0f} a second"
                say(f"{path.name}: {made} tokens, {rates}; {there} in all")
            number += 1
        return there

    def _check(self, base: FrozenBase) -> None:
        wishes = asdict(self.wishes)
        # How many are answered together changes no answer.
        del wishes["rows"]
        about = {"wishes": wishes, "prompts": self.prompts, "seed": self.seed}
        path = self.folder / ABOUT
        with alone(path):
            if not path.exists():
                with whole(path) as part:
                    part.write_text(json.dumps({**about, "base": base.mark}, indent=1) + "\n", encoding="utf-8")
        text_in(self.folder, base)
        found = read_object(path)
        other = [name for name in about if found.get(name) != about[name]]
        if other:
            raise CheckpointError(
                f"{self.folder} holds text made with another {', '.join(other)}; use another --folder, or say what "
                f"{path} says"
            )


def text_in(folder: Path, base: FrozenBase) -> list[Path]:
    """The files of text in a folder.

    :raises CheckpointError: if they are another base's.
    """
    path = folder / ABOUT
    mark = {KEY: json.dumps(read_object(path).get("base", {}), default=str)}
    check_shape(mark, base.shape, str(path))
    check_embedding(mark, base.weights.embedding, str(path))
    return Corpus(folder).files()


def _written(path: Path, answers: BaseAnswers, chats: Sequence[tuple[int, list[dict[str, str]]]]) -> int:
    """Write a file, unless another process does or did; returns the tokens of its answers."""
    with ExitStack() as held:
        try:
            held.enter_context(alone(path, wait=False))
        except CheckpointError:
            return 0
        part = held.enter_context(whole(path))
        return 0 if path.exists() else write_answers(part, answers(chats))


def write_answers(path: Path, answers: Iterable[BaseAnswer]) -> int:
    """Write gzip JSON lines `{"p": prompt ids, "r": answer ids, "t": temperature}`; returns the tokens of answers.

    :raises CheckpointError: if all of them are too short to teach anything.
    """
    written = 0
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for answer in answers:
            if len(answer.tokens) >= SHORTEST_ANSWER:
                line = {"p": answer.prompt, "r": answer.tokens, "t": answer.temperature}
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
                written += len(answer.tokens)
    if not written:
        raise CheckpointError(
            f"no answer of the base has {SHORTEST_ANSWER} tokens; use a base that was taught to answer, and look at "
            f"its chat template and eos_token_id"
        )
    return written


def _tokens(path: Path) -> int:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return sum(len(json.loads(line)["r"]) for line in file)
