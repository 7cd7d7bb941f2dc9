"""What passes cost, watched: a figure from a busy moment is not kept for good.

Other work on the machine only ever makes a pass slower. So passes that turn out much faster than what was kept say that
it was measured at a bad time, and it is forgotten; slower ones say nothing.
"""

from collections import deque
from collections.abc import Collection
from statistics import median

from dllm_plugins.decoding.program import Pass
from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.denoisers.costs import Costs
from dllm_plugins.drafting.kept import costs_of
from dllm_plugins.drafting.kept import doubt

#: So many passes are looked at, of at most so many rows.
_SEEN, _ROWS = 32, 8
#: What is kept is wrong if they take less than this share of it. Forgotten in vain so often, it stays as it is.
_SHARE, _MOST = 0.75, 3


class WatchedCosts:
    """Of one denoiser. Called, it tells what passes cost, measured if need be; None if nobody knows."""

    def __init__(self, denoiser: FullDenoiser) -> None:
        self._denoiser = denoiser
        self._costs: Costs | None = None
        self._shares: deque[float] = deque(maxlen=_SEEN)
        self._forgotten = 0

    def __call__(self) -> Costs | None:
        """See the class. A measurement takes about a second."""
        self._costs = costs_of(self._denoiser)
        return self._costs

    def note(self, passes: Collection[Pass], seconds: float) -> None:
        """A pass over all these took so long, whatever is drawn from it included.

        Those that draft, over long prompts, or of another model are not what was measured, and are not compared.
        """
        if self._costs is None or self._forgotten == _MOST:
            return
        rows = sum(made.forwarded for made in passes)
        segments = (segment for made in passes for segment in made.segments)
        if not 0 < rows <= _ROWS or any(segment.noisy or segment.guest is not None for segment in segments):
            return
        self._shares.append(1000 * seconds / self._costs.pass_over(rows))
        if len(self._shares) == _SEEN and median(self._shares) < _SHARE:
            self._shares.clear()
            self._forgotten += 1
            doubt(self._denoiser)
