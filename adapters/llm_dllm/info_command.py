"""The command `llm dllm info`."""

from collections.abc import Mapping

import click

from dllm_plugins import base_model
from dllm_plugins.errors import DownloadError
from llm_dllm.commands import choice_of
from llm_dllm.commands import clean_errors
from llm_dllm.loading import DEFAULT
from llm_dllm.loading import ENVIRONMENT
from llm_dllm.loading import Choice
from llm_dllm.registry import registry_file


@click.command()
@click.option("-m", "--model", default=DEFAULT.model_id, show_default=True, help="A model of `llm dllm models`.")
def info(model: str) -> None:
    """What is installed, what would be loaded, and which backend `auto` chooses and why."""
    with clean_errors():
        choice = choice_of(model)
        if choice == DEFAULT:
            _show(_default_lines())
        else:
            _show({"place": choice.place})
        _show(_backend_lines(choice))
        _show({"registry": str(registry_file()), "variables": f"{', '.join(ENVIRONMENT.values())}, DLLM_CACHE"})
        _show({title: ", ".join(sorted(found)) for title, found in _registered().items()})


def _show(lines: Mapping[str, str]) -> None:
    for title, text in lines.items():
        click.echo(f"{title:9} {text}")


def _default_lines() -> dict[str, str]:
    """Weights and device of the default model."""
    from dllm_plugins.denoisers.placement import best_device
    from dllm_plugins.denoisers.placement import choose_dtype
    from dllm_plugins.families.smollm2 import shipped_denoiser

    options = DEFAULT.load_options()
    device = best_device(options.get("device", "auto"))
    dtype = choose_dtype(options.get("dtype", "auto"), device)
    ready = "ready" if base_model.is_ready() else "missing: run `llm dllm setup`"
    return {
        "base": str(options.get("base") or f"{base_model.base_folder()} ({ready})"),
        "denoiser": str(options.get("denoiser") or shipped_denoiser()),
        "device": f"{device}, {str(dtype).removeprefix('torch.')}",
    }


def _backend_lines(choice: Choice) -> dict[str, str]:
    """What `auto` chooses for a model, and whether GGUF files can be read at all."""
    from dllm_plugins.gguf.load import installed
    from dllm_plugins.models import Chosen
    from dllm_plugins.models import auto_backend

    options = choice.load_options()
    asked = options.pop("backend", "auto")
    try:
        chosen = auto_backend(choice.place, **options) if asked == "auto" else Chosen(asked, "by DLLM_BACKEND")
    except DownloadError:
        chosen = Chosen("auto", "not known before the base model is there")
    return {"backend": f"{chosen.backend}: {chosen.reason}", "llama.cpp": installed()}


def _registered() -> dict[str, Mapping[str, object]]:
    from dllm_plugins import plugins

    return {
        "models": plugins.presets(),
        "modes": plugins.strategies(),
        "rules": plugins.rules(),
        "backends": plugins.backends(),
        "adapters": plugins.adapters(),
    }
