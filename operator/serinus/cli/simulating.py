"""The command ``simulate``: a Canary and a traffic model in, how the release goes out."""

from typing import Annotated, Literal

import typer

from serinus.cli.options import run

app = typer.Typer()


@app.command()
def simulate(
    canary: Annotated[str, typer.Argument(help='File with one Canary; "-" is standard input.', metavar="CANARY.yaml")],
    traffic: Annotated[str, typer.Option(help="Traffic model.", metavar="MODEL.yaml")],
    seed: Annotated[int, typer.Option(min=0, help="Another one gives other luck, the same one the same release.")] = 1,
    runs: Annotated[int, typer.Option(min=1, max=10_000, help="So many releases, each with the next seed.")] = 1,
    horizon: Annotated[str, typer.Option("--for", help="How long a release is followed.")] = "2h",
    output: Annotated[
        Literal["table", "json", "html"], typer.Option("-o", "--output", help="How the result is written.")
    ] = "table",
    file: Annotated[str, typer.Option(help="Where it is written; else to standard output.", metavar="PATH")] = "",
    processes: Annotated[int, typer.Option(min=1, help="How many work side by side.")] = 2,
) -> None:
    """Play a whole release in virtual time, decided as the operator decides, without a cluster."""
    from serinus.api.base import seconds

    try:
        horizon_s = seconds(horizon)
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--for") from problem
    if horizon_s <= 0:
        raise typer.BadParameter('nothing happens in no time; write for example "2h"', param_hint="--for")

    async def play() -> int:
        from serinus.cli import simulated

        order = simulated.Order(canary, traffic, seed, runs, horizon_s)
        return simulated.simulated(order, output, file, processes)

    run(play())
