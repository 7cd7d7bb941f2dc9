"""transformers' classes by their names.

A family only names the class that computes it: importing one brings transformers' whole machinery for models,
which takes seconds. It is imported when a checkpoint is loaded, and no sooner.
"""

from collections.abc import Callable
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

from dllm_plugins.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def transformers_class(name: str) -> "type[PreTrainedModel]":
    """A class of transformers.

    :raises CheckpointError: if the installed version has none of this name.
    """
    import transformers

    found: type[PreTrainedModel] | None = getattr(transformers, name, None)
    if found is None:
        raise CheckpointError(
            f"transformers {transformers.__version__} has no {name}; install another one: "
            f"pip install 'transformers>=5.20,<6'"
        )
    return found


def always(name: str) -> "Callable[[Mapping[str, Any]], type[PreTrainedModel]]":
    """For :class:`~dllm_plugins.families.layout.Layout`: this class, whatever the config says."""
    return lambda _config: transformers_class(name)


def is_a(kind: type, name: str) -> bool:
    """Whether a class is transformers' one of this name, or derived from it; nothing is imported to find out."""
    return any(base.__name__ == name and base.__module__.startswith("transformers.") for base in kind.__mro__)
