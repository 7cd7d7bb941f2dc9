"""Models whose weights were quantised while they were loaded: the block decoder has them, and they only decode."""

from collections.abc import Callable
from typing import Any
from typing import NoReturn
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.errors import OptionError
from dllm_plugins.families.hub import decoder_shape
from dllm_plugins.families.hub import fits_kernels
from dllm_plugins.families.quantised import check_quantised
from dllm_plugins.families.quantised import wants_quantised
from dllm_transformers.opening import OpenedCheckpoint

_CPU = torch.device("cpu")


def check_rounded(opened: OpenedCheckpoint, options: dict[str, Any], adapter: object) -> bool:
    """Whether weights of fewer bits are asked for, and can be had; before any are read.

    :param options: of `from_pretrained`.
    :param adapter: one that would be loaded beside the weights.
    :raises OptionError: naming what excludes them.
    """
    if not wants_quantised(opened.options, _CPU):
        return False
    asked = opened.options.weights
    for name in ("device_map", "attn_implementation"):
        if options.get(name) is not None:
            raise OptionError(f"weights={asked!r} runs on the block decoder; leave {name}={options[name]!r} out")
    if adapter is not None:
        raise OptionError(
            f"weights={asked!r} leaves no weights that an adapter could stand beside; save what merge_and_unload() "
            f"returns and load that, or use load_model(ADAPTER, weights={asked!r}) of dllm_plugins, which merges it"
        )
    fits_kernels(opened.checkpoint, opened.options)
    check_quantised(asked, _CPU, opened.dtype or torch.bfloat16, decoder_shape(opened.checkpoint))
    return True


class RoundedWeights(PreTrainedModel):
    """What a model can and cannot do once its weights are the block decoder's.

    `rounded` is the decoder, None where the weights are the model's own; `quantised` says what these are where
    another library has quantised them, "" where nobody has.
    """

    opened: OpenedCheckpoint
    rounded: Denoiser | None = None
    quantised: str = ""

    @property
    def device(self) -> torch.device:
        """Where ids are expected."""
        return super().device if self.rounded is None else _CPU

    def need_weights(self, what: str) -> None:
        """Refuse what only weights could do.

        :raises OptionError: where there are none.
        """
        if self.rounded is not None:
            self._refuse(what)

    def need_plain_weights(self, what: str) -> None:
        """Refuse what quantised weights cannot do.

        :raises OptionError: where there are none but these.
        """
        if self.rounded is not None or self.quantised:
            self._refuse(what)

    def _refuse(self, what: str) -> NoReturn:
        by = "quantization_config" if self.quantised else f"weights={self.opened.options.weights!r}"
        raise OptionError(
            f"{what} needs the weights, which were quantised for decoding by {by}; load the model again without that"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves and casts of every module: there is nothing to move, so only what changes nothing is done."""
        if self.rounded is None:
            if self.quantised and fn(torch.empty(0, dtype=self.dtype)).dtype != self.dtype:
                self._refuse("casting the model")
            # torch does not type what it takes.
            return super()._apply(fn, recurse)  # type: ignore[no-any-return,no-untyped-call]
        before = torch.empty(0, dtype=self.dtype)
        after = fn(before)
        if (after.dtype, after.device) != (before.dtype, before.device):
            self._refuse(f"moving or casting the model to {after.dtype} on {after.device}")
        return self

    def train(self, mode: bool = True) -> Self:
        """As every module's, but never for training.

        :raises OptionError: for that.
        """
        if mode:
            self.need_weights("train()")
        super().train(mode)
        return self

    def load_adapter(self, *args: Any, **kwargs: Any) -> Any:
        """See :class:`~dllm_transformers.adapting.WholeAdapters`.

        :raises OptionError: where there are no weights beside which it could stand.
        """
        self.need_weights("load_adapter()")
        return super().load_adapter(*args, **kwargs)

    def add_adapter(self, *args: Any, **kwargs: Any) -> Any:
        """The same."""
        self.need_weights("add_adapter()")
        return super().add_adapter(*args, **kwargs)
