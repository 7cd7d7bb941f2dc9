"""Options that name token ids: checked against the model's vocabulary when a request is admitted."""

from typing import Annotated
from typing import TypeAlias

from pydantic import BaseModel

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError

_IDS = "token ids"
#: Types of settings; what is marked so is checked by :func:`check_ids`, whatever its sampler.
TokenIds: TypeAlias = Annotated[tuple[int, ...], _IDS]
TokenId: TypeAlias = Annotated[int | None, _IDS]


def check_ids(settings: BaseModel, spec: ModelSpec) -> None:
    """Refuse ids that are none of this model's.

    :raises OptionError: naming the option and the id.
    """
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if value is None or _IDS not in type(settings).model_fields[name].metadata:
            continue
        tokens = (value,) if isinstance(value, int) else value
        if len(set(tokens)) >= spec.vocabulary:
            raise OptionError(f"{name} names all {spec.vocabulary} ids of {spec.name}; leave some of them out")
        for token in tokens:
            if not 0 <= token < spec.vocabulary:
                what = f"{name}={token} is" if isinstance(value, int) else f"{name} has id {token},"
                raise OptionError(
                    f"{what} outside 0 to {spec.vocabulary - 1}; leave it out, or give an id of {spec.name}"
                )
