"""Mode `diffusion` of the default model: on to the end of the text, or between fixed texts."""

from collections.abc import Mapping
from functools import partial

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.block_diffusion import BlockDiffusion
from dllm_plugins.modes.block_diffusion import write_on
from dllm_plugins.modes.infilling import Infilling
from dllm_plugins.modes.infilling import fill
from dllm_plugins.modes.ruled import CommitSettings
from dllm_plugins.modes.steps import Counts
from dllm_plugins.processes.base import NoiseProcess
from dllm_plugins.rules.at_work import Rules
from dllm_plugins.rules.base import CommitRule


def start(rules: Rules, process: NoiseProcess, canvas: Canvas, settings: CommitSettings, spec: ModelSpec) -> Program:
    """Block after block, or gap after gap.

    :raises OptionError: for gaps on a backend that cannot show open rows what follows them.
    """
    length, at_work = settings.block_length or spec.block_length, rules.at_work(canvas.row)
    if canvas.row.gaps or canvas.row.suffix:
        if not spec.mixes:
            raise OptionError(
                message(
                    "mode 'diffusion' of {} fills no gaps where clean and open rows take turns; load it with "
                    "{backend}='kernels'",
                    spec.name,
                )
            )
        return fill(Infilling(canvas, length, at_work, process, spec))
    return write_on(BlockDiffusion(canvas, length, at_work, process, spec))


def sampler(rules: Mapping[str, CommitRule], process: NoiseProcess) -> Sampler:
    """It, with the rules there are, on a process that says what an open position holds."""
    known = Rules(rules, {})
    return Sampler(
        name="diffusion",
        summary="blocks behind an exactly cached prefix, any commit rule, the frontier by a clean row",
        source="the geometry is ours: docs/default-model.md; the rules name theirs",
        settings=CommitSettings,
        start=partial(start, known, process),
        suffix=True,
        unheld=None,
        counts=Counts.BLOCK,
        refuse=known.check,
        keeps_prefix=True,
    )
