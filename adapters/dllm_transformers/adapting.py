"""Adapters of PEFT beside the weights of our classes: loaded whole, and added up where the engine reads weights."""

import copy
from typing import Any

from torch import Tensor
from torch import nn
from transformers.integrations.peft import PeftAdapterMixin

from dllm_plugins.errors import CheckpointError

#: What takes adapters that transformers would load in part.
_ORIGINAL = (
    "one that was trained with a checkpoint's own code has its names: load_model('ADAPTER') of dllm_plugins merges it"
)
_RESIZED = (
    "one that was trained after resize_token_embeddings goes with a base that was saved after it: save that, and name "
    "it in adapter_config.json"
)


class WholeAdapters(PeftAdapterMixin):
    """A class of transformers whose adapters are loaded whole or not at all."""

    def load_adapter(self, *args: Any, **kwargs: Any) -> Any:
        """See :class:`~transformers.integrations.PeftAdapterMixin`.

        :raises CheckpointError: for one that lacks weights here, such as one that goes by the names of other code, and
            for one of other sizes.
        """
        try:
            report = super().load_adapter(*args, **kwargs)
        # What transformers and PEFT raise where sizes differ.
        except (RuntimeError, IndexError) as error:
            raise CheckpointError(f"the adapter does not fit this model ({error}); {_RESIZED}") from error
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            for name in sorted(getattr(report, kind)):
                raise CheckpointError(f"{kind.replace('_', ' ')} of the adapter: {name}; {_ORIGINAL}")
        return report


def added_up(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights by the names that they have without adapters; those that adapters change are copies.

    :raises CheckpointError: for adapters that hold whole layers of their own.
    """
    found = model.state_dict()
    for name, module in model.named_modules():
        if hasattr(module, "modules_to_save"):
            raise CheckpointError(
                f"the adapter keeps a {name} of its own (modules_to_save), which the engine does not read beside the "
                f"model's; decode what merge_and_unload() returns"
            )
        if not hasattr(module, "base_layer"):
            continue
        for key in [key for key in found if key.startswith(f"{name}.")]:
            del found[key]
        found |= {f"{name}.{key}": tensor for key, tensor in _merged(module).state_dict().items()}
    return found


def _merged(layer: Any) -> nn.Module:
    """One layer of PEFT as an ordinary one, with the adapters that are on."""
    whole = copy.deepcopy(layer)
    if not layer.disable_adapters:
        whole.merge()
    elif layer.merged:
        whole.unmerge()
    found: nn.Module = whole.get_base_layer()
    return found
