"""The command `routes` of `python -m dllm_plugins` and of `llm dllm`."""

from typing import TYPE_CHECKING

import click

from dllm_plugins.commands.terminal import clean_errors

if TYPE_CHECKING:
    from dllm_plugins.routing.bandit import Pool


@click.command()
@click.argument("model", default="dllm")
@click.option("--reset", is_flag=True, help="Forget what was measured; rules stay.")
def routes(model: str, reset: bool) -> None:
    """Show by what mode `auto` chooses.

    The rules for MODEL, and what was measured of all models here. Rules say whose text a request gets; write others
    into the file that is named. What was measured chooses among modes that give the same text, so forgetting it changes
    no answer.
    """
    with clean_errors():
        from dllm_plugins.pairs.named import pairs
        from dllm_plugins.routing.kept import book
        from dllm_plugins.routing.kept import routes_file
        from dllm_plugins.routing.rules import rules_file
        from dllm_plugins.routing.rules import rules_of

        if reset:
            click.echo(f"{routes_file()}: {'forgotten' if book().forget() else 'nothing was kept'}")
        there = "" if rules_file().exists() else ", which is not there"
        click.echo(f"rules of {model} ({rules_file()}{there})")
        for kind, rule in rules_of(model).told(pair=model in pairs()).items():
            click.echo(f"  {kind} = {rule}")
        for name, found in book().look().models.items():
            click.echo(name)
            for told, pool in found.wider.items():
                click.echo(f"  all of {told}: {_rates(pool)}")
            for told, known in found.situations.items():
                click.echo(f"  {told}: {_rates(known)}; regret {known.regret:.3g} of {known.seconds:.3g} s")


def _rates(pool: "Pool") -> str:
    """What was measured of its modes."""
    return ", ".join(
        f"{mode} {arm.rate or 0:.3g} tokens/s in {arm.pieces} of {arm.tried} pieces" for mode, arm in pool.arms.items()
    )
