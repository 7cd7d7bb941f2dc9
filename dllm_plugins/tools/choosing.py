"""How it is found out whether an answer calls a tool, where a chat template never taught its model to say so.

A model that was not trained to call seldom begins to, however much a question asks for it; but it is likelier to where
the question does. How likely in itself depends on the model, the tools and what was said before. So it is measured by
what the same model says of the same chat with a last message that asks for nothing, as contextual calibration does
(Zhao et al. 2021, arXiv 2102.09690): the answer calls if the question makes a call likelier than that message.

Behind what tools returned it answers, unless a call is likelier than all else: a model that was not trained to would
repeat the call, or what it returned.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dllm_plugins.constraints.values import Constraint

#: A message that asks for nothing. docs/tools.md compares it with others.
IDLE = "Hi."
#: A call is likelier than all else above this log-probability.
LIKELY = math.log(0.5)


@dataclass(frozen=True, slots=True)
class Choosing:
    """What an engine has to know to choose.

    :param mark: token ids that every call begins with.
    :param idle: prompt ids of the chat whose last message asks for nothing; None where that is a tool's.
    :param calls: what an answer is that calls.
    """

    mark: tuple[int, ...]
    idle: tuple[int, ...] | None
    calls: Constraint

    def common(self, prompt: Sequence[int]) -> int | None:
        """How many tokens the prompt has in common with the idle one, less than all of each; None if there is none."""
        if self.idle is None:
            return None
        most = min(len(prompt), len(self.idle)) - 1
        return next((place for place in range(most) if prompt[place] != self.idle[place]), most)
