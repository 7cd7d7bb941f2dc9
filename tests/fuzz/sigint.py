"""Real SIGINTs at random instants of every mode, in a process of its own: `python -m tests.fuzz.sigint COUNT SEED`.

Prints as JSON what became of all requests. The callers beside the one that is interrupted get the right
answer or an error of ours, and so does whoever comes afterwards; nothing of the interrupted one is left.
"""

import gc
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import torch

from dllm_plugins import DllmError
from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.errors import PassError
from dllm_plugins.sharing import SharedModel

from ..modes.tiny_models import random_model

Tokens = tuple[int, ...]


class Interrupter:
    """Sends this process SIGINTs, which are raised only inside its block."""

    def __init__(self) -> None:
        self._armed = False
        signal.signal(signal.SIGINT, self._heard)

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt

    def run(self, work: Any, delay: float) -> Any:
        """What `work` returns, or KeyboardInterrupt if the signal came before its end."""
        sender = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        sender.start()
        try:
            try:
                self._armed = True
                return work()
            finally:
                self._armed = False
        finally:
            sender.cancel()
            sender.join()


class Modes:
    """One model with every mode there is, and what each says alone."""

    def __init__(self) -> None:
        self.model = random_model(*sorted(plugins.modes()))
        self.shared = SharedModel(self.model)
        self.known: dict[tuple[str, int], Tokens] = {}
        self.seconds: dict[str, float] = {}
        for mode in self.model.denoiser.spec.modes:
            begin = time.perf_counter()
            try:
                self.known |= {(mode, place): self._alone(mode, place) for place in range(2)}
            except DllmError:
                # Made for another kind of checkpoint.
                continue
            self.seconds[mode] = (time.perf_counter() - begin) / 2

    @staticmethod
    def request(mode: str, place: int) -> Request:
        """The same for a mode and a place each time."""
        config = SamplingConfig(mode=mode, max_new_tokens=5 + place, temperature=0.7 * place, seed=place)
        return Request([3 + place] * (2 + place), config, stop_ids=frozenset())

    def _alone(self, mode: str, place: int) -> Tokens:
        return self.model.engine().generate([self.request(mode, place)])[0].tokens

    def answer(self, events: Any) -> Tokens | None:
        """What a stream ends with; None for an error of ours."""
        with closing(events):
            try:
                return next(event.tokens for event in events if isinstance(event, Finish))
            except PassError:
                return None


def left(modes: Modes) -> dict[str, int]:
    """What the process holds."""
    gc.collect()
    rows: Any = modes.model.denoiser
    shared = modes.shared
    return {
        "memory": int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        "descriptors": len([*Path("/proc/self/fd").iterdir()]),
        "rows": rows.open_rows + len(shared._engine.active) + len(shared._claims) + len(shared._lock._queue),
    }


def main(count: int, seed: int) -> dict[str, Any]:
    """So many interrupts, spread over all modes."""
    torch.set_num_threads(1)
    random, modes, interrupter, found = Random(seed), Modes(), Interrupter(), Counter[str]()
    names, wrong, first = sorted(modes.seconds), list[str](), left(modes)
    for turn in range(count):
        if turn == count // 4:
            first = left(modes)
        mode = names[turn % len(names)]
        others = [(random.choice(names), place) for place in range(2)]
        streams = [modes.shared.stream(modes.request(*other)) for other in others]
        for stream in streams:
            next(stream)
        mine, delay = modes.shared.stream(modes.request(mode, turn % 2)), 2 * random.random() * modes.seconds[mode]
        try:
            answers = [((mode, turn % 2), interrupter.run(partial(modes.answer, mine), delay))]
        except KeyboardInterrupt:
            found["interrupted"] += 1
            mine.close()
            answers = []
        answers += [(other, modes.answer(stream)) for other, stream in zip(others, streams, strict=True)]
        late = (mode, random.randrange(2))
        answers.append((late, modes.answer(modes.shared.stream(modes.request(*late)))))
        for which, answer in answers:
            found["failed" if answer is None else "right" if answer == modes.known[which] else "wrong"] += 1
            if answer is not None and answer != modes.known[which]:
                wrong.append(f"{which}: {answer} for {modes.known[which]}")
    return {**found, "modes": names, "errors": wrong[:5], "before": first, "after": left(modes)}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
