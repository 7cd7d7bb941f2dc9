"""What `llm dllm info --route` says: which mode would answer, and why."""

from collections.abc import Iterable

from dllm_plugins.config import SamplingConfig
from dllm_plugins.routing import AUTO
from dllm_plugins.template import ROOM
from dllm_plugins.template import Gap
from dllm_plugins.template import Template
from llm_dllm.commands import wanted_in
from llm_dllm.loading import LoadChoice
from llm_dllm.loading import loaded_model
from llm_dllm.model import request_of
from llm_dllm.schemas import schema_of


def route_told(
    prompt: str,
    options: Iterable[tuple[str, str]],
    schema: str | None,
    suffix: str | None,
    rows: int,
    choice: LoadChoice,
) -> str:
    """One line; the model is loaded, and nothing is decoded.

    :param options: as given to `-o`; a mode among them is left as it is.
    :param suffix: text behind a gap, before which the prompt then stands.
    :param rows: that share the passes.
    :raises DllmError: for options that are unknown or wrong, and a model that cannot be loaded.
    """
    config, extras = wanted_in(options, schema_of(schema, None))
    if config.mode not in (None, AUTO):
        return f"{config.mode}, as asked for"
    given = {**config.given(), "mode": AUTO}
    model = loaded_model(choice).model
    if suffix is None:
        chat = [{"role": "user", "content": prompt}]
        request = request_of(model, chat, SamplingConfig(**given), choice.model_id, extras)
    else:
        gap = Gap(max_tokens=given.pop("max_new_tokens", ROOM), constraint=given.pop("constraint", None))
        request = model.fill_request(Template(prompt, gap, suffix), **given)
    return str(model.engine().router.explain(request, rows))
