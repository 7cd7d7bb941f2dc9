"""A tri-mode model whose drafts are as good as a test wants them."""

import torch
from torch import Tensor

from dllm_plugins.denoisers.tri_mode import TriModeDenoiser


class KnowingDenoiser:
    """The tiny model, but with drafts taken from a script: the right text, wrong in every `fault`-th place."""

    def __init__(self, inner: TriModeDenoiser, text: list[int], fault: int) -> None:
        self.inner, self.text, self.fault = inner, text, fault
        self.spec = inner.spec
        self.open_row, self.close_row = inner.open_row, inner.close_row
        self.forward, self.freeze, self.logits = inner.forward, inner.freeze, inner.logits
        self.hold, self.release = inner.hold, inner.release

    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        pairs = [(self.text[i - 1], self.text[i]) for i in range(1, len(self.text))]
        logits = torch.zeros(len(hidden), self.spec.vocabulary)
        for row, (near, far) in enumerate(left.tolist()):
            position = pairs.index((far, near)) + 2 if (far, near) in pairs else 0
            wrong = self.fault and position % self.fault == 0
            token = self.text[position] if position < len(self.text) else 0
            logits[row, (token + 1) % 256 if wrong else token] = 1e3
        return logits, None
