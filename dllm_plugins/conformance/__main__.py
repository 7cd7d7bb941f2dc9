"""`python -m dllm_plugins.conformance [FOLDER...]`: run golden cases, print a table, exit 1 on a miss."""

from pathlib import Path

import click
import torch
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from dllm_plugins.conformance.archives import OWN
from dllm_plugins.conformance.case import find_cases
from dllm_plugins.conformance.check import check
from dllm_plugins.conformance.compare import Result
from dllm_plugins.errors import DllmError

COLOURS = {"REPRODUCED": "green", "CORRECTED": "cyan", "REFUSED": "yellow", "MISSED": "bold red"}


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--produce", type=click.Path(file_okay=False, path_type=Path), help="Write what we produce; compare nothing."
)
@click.option(
    "--backend", default="torch", show_default=True, help="What computes the passes: torch, kernels or llama_cpp."
)
def main(folders: tuple[Path, ...], produce: Path | None, backend: str) -> None:
    """Run every case in FOLDERS through the public API and compare with what was recorded.

    Without FOLDERS: the cases of every reference implementation that this repository holds.
    """
    if not folders and not OWN.is_dir():
        raise click.UsageError("golden cases are in the repository, not in a wheel: give their FOLDER, or use a clone")
    torch.set_num_threads(1)
    disable_progress_bar()
    try:
        cases = find_cases(folders or (OWN,))
        if produce is not None:
            from dllm_plugins.conformance.produce import write

            for case in cases:
                click.echo(f"{write(case, produce, backend)}")
            return
        results: list[Result] = []
        for case in cases:
            found = list(check(case, backend))
            _show(found)
            results += found
    except DllmError as error:
        raise click.ClickException(str(error)) from error
    missed = sum(result.verdict == "MISSED" for result in results)
    click.echo(f"{len(results)} checks in {len(cases)} cases, {missed} missed")
    raise SystemExit(1 if missed else 0)


def _show(results: list[Result]) -> None:
    table = Table("case", "setting", "verdict", "detail")
    for result in results:
        table.add_row(result.case, result.setting, f"[{COLOURS[result.verdict]}]{result.verdict}[/]", result.detail)
    Console(width=None if Console().is_terminal else 160).print(table)


if __name__ == "__main__":
    main()
