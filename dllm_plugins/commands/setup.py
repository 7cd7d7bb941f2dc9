"""The command `setup`, of `python -m dllm_plugins` and of `llm dllm`."""

import os

import click

from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.commands.terminal import shown
from dllm_plugins.default_model import base_model
from dllm_plugins.files.progress import Progress

STAGES = {
    "download": "Downloading",
    "check": "Checking",
    "build": "Building the kernels",
}


@click.command()
@click.option("--force", is_flag=True, help="Fetch it again, for example after a damaged file.")
@click.option("--hub", is_flag=True, help=f"Fetch {base_model.HUB_ID} from the hub instead.")
def setup(force: bool, hub: bool) -> None:
    """Fetch the default model's base weights once; build the kernels.

    Kernels are built where there is a C++ compiler. Later runs need no network.
    """
    with clean_errors():
        if hub:
            _from_hub()
        else:
            with shown(STAGES) as report:
                base_model.setup(report, force)
            click.echo(f"The base model is ready in {base_model.gguf_path()}; no network is needed any more.")
        with shown(STAGES) as report:
            kernels = build_kernels(report)
    click.echo(kernels)


def _from_hub() -> None:
    from dllm_plugins.families.files import hub_folder

    folder = hub_folder(base_model.HUB_ID)
    click.echo(
        f"{base_model.HUB_ID} is in {folder}. To use it: export DLLM_BASE={folder} for llm, "
        f"base={str(folder)!r} elsewhere."
    )


def build_kernels(progress: Progress) -> str:
    """Build the compiled kernels if they are not there yet; says in one line what became of it.

    Nothing depends on them: without them PyTorch computes, slower.
    """
    from dllm_kernels.build import build
    from dllm_kernels.compiled import library
    from dllm_kernels.dispatch import KernelError

    if os.environ.get("DLLM_KERNELS") == "":
        return f"The compiled kernel library {library.why_not()}."
    try:
        target = library.best_target()
        if not library.place(target).exists():
            progress("build", 0, 0)
            build(target)
            progress("build", 1, 1)
        reason = library.why_not()
    except (KernelError, OSError) as error:
        reason = f"was not built: {_one_line(str(error))}"
    if reason is None:
        return f"The compiled kernels for {target} are ready in {library.place(target).parent}."
    return f"Answers come slower than they could: the compiled kernel library {reason}"


def _one_line(text: str) -> str:
    """The compiler's first complaint, and where the others are."""
    from dllm_kernels.compiled.library import BUILD

    first, *said = text.splitlines()
    if not said:
        return first
    return f"{first} {next((line for line in said if 'error' in line), 'it gave no reason')}; `{BUILD}` shows all of it"
