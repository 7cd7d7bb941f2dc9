"""The command `llm dllm gguf`."""

from pathlib import Path

import click

from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.commands.terminal import shown
from dllm_plugins.errors import OptionError
from llm_dllm.loading import DEFAULT

#: What the converter reports, for people.
STAGES = {"write": "Writing", "quantise": "Quantising"}
QUANTS = "Q4_0|Q8_0|BF16|F16|F32"


@click.command()
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--quant",
    default="BF16",
    show_default=True,
    metavar=QUANTS,
    help="Type of the weights; also llama.cpp's others, such as Q4_K_M.",
)
@click.option("--preset", help="The sampler, where the checkpoint does not say for which it was made.")
@click.option("--family", help="The family, of a checkpoint that looks like an ordinary model.")
@click.option("--mask-id", type=int, help="The mask token, where nothing in the checkpoint says it.")
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
def gguf(
    checkpoint: str,
    out: Path,
    quant: str,
    preset: str | None,
    family: str | None,
    mask_id: int | None,
    force: bool,
) -> None:
    """Convert CHECKPOINT to the GGUF file OUT.

    CHECKPOINT is a folder or a hub id. OUT then holds weights, tokenizer, chat template and all that the family needs:
    `llm -m OUT` answers, through llama.cpp or our kernels.
    """
    with clean_errors():
        _check_free(out, force)
        if checkpoint == DEFAULT.model_id:
            raise OptionError(
                f"{checkpoint!r} is a base and a denoiser, which become files by themselves: set DLLM_BACKEND=llama_cpp"
            )
        from dllm_plugins.llama_cpp.convert import convert

        with shown(STAGES) as report:
            convert(checkpoint, out, quant, progress=report, family=family, preset=preset, mask_id=mask_id)
    click.echo(f"Wrote {out}, {out.stat().st_size / 1e6:.4g} MB.")
    click.echo(f"Try: llm -m {out} 'Why is the sky blue?' -o max_tokens 64")


def _check_free(out: Path, force: bool) -> None:
    """Refuse to write over a file, before minutes of work.

    :raises OptionError: naming it.
    """
    if out.exists() and not force:
        raise OptionError(f"{out} is there already; name another file, or say --force to replace it")
    if not out.parent.is_dir():
        raise OptionError(f"there is no folder {out.parent}; make it first")
