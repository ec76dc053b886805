"""The commands that tell why: ``explain``, ``history``, ``replay``."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from serinus.cli.options import Context, Kubeconfig, Name, Namespace, Output, console, dump, run
from serinus.cli.session import Exit, Object, Place, Stop

app = typer.Typer()

Json = Annotated[Literal["json"] | None, typer.Option("-o", "--output", help="Another form.")]

Form = Annotated[
    Literal["json", "html"] | None, typer.Option("-o", "--output", help="Another form; html is a page of one run.")
]


@app.command()
def explain(
    name: Name,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Json = None,
) -> None:
    """Tell what the evidence says of the run under way, or of the last one, and what is still needed."""

    async def show(place: Place) -> int:
        from serinus.api import parse_live
        from serinus.api.canary import CanarySpec
        from serinus.api.release import CanaryStatus
        from serinus.cli import explaining, session, view
        from serinus.cli.watching import wall_clock

        async with session.cluster(place) as (kube, where):
            canary = await session.read_canary(kube, where, name)
        spec = parse_live(CanarySpec, canary["spec"])
        what = explaining.explained(canary, spec, parse_live(CanaryStatus, canary.get("status") or {}))
        if what is None:
            raise Stop(f"{name} has had no run yet, so there is nothing to explain.", Exit.REFUSED)
        if output:
            dump(explaining.as_json(what), Output.JSON)
        else:
            began = f"began {view.age(what.run.started_at, wall_clock())} ago"
            console().print(explaining.text(what, began), end="")
        return Exit.DONE

    run(show(Place(kubeconfig, context, namespace)))


@app.command()
def history(
    name: Name,
    of_run: Annotated[str, typer.Argument(help="A run; -o json writes its whole record.", metavar="RUN")] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Form = None,
) -> None:
    """List the last runs, newest first, with verdict, reason and experiments; or show one of them."""
    if output == "html" and not of_run:
        raise typer.BadParameter("a page is of one run; name it as history lists it", param_hint="RUN")

    async def show(place: Place) -> int:
        from serinus.cli import records, recounting, session
        from serinus.cli.watching import wall_clock

        async with session.cluster(place) as (kube, where):
            canary = await session.read_canary(kube, where, name)
            if of_run:
                record = await records.record(kube, canary, of_run)
                if output == "json":
                    dump(record, Output.JSON)
                elif output:
                    from serinus.cli.run_page import page

                    sys.stdout.write(page(record))
                else:
                    console().print(recounting.one_run(record), end="")
                return Exit.DONE
            summaries = [recounting.summary(ending) for ending in await records.runs(kube, canary)]
        if output:
            dump(summaries, Output.JSON)
        elif summaries:
            sys.stdout.write(recounting.table(summaries, wall_clock()) + "\n")
        else:
            sys.stderr.write(f"{name} has had no run yet.\n")
        return Exit.DONE

    run(show(Place(kubeconfig, context, namespace)))


@app.command()
def replay(
    name: Annotated[str, typer.Argument(help="Name of the Canary.")] = "",
    of_run: Annotated[str, typer.Argument(help="The run, as history lists it.", metavar="RUN")] = "",
    file: Annotated[
        str, typer.Option("--file", help='A record that "history NAME RUN -o json" wrote; "-" is standard input.')
    ] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Form = None,
) -> None:
    """Compute verdicts again from the recorded counters; 1 is the exit status when one comes out otherwise."""
    if bool(file) == bool(name) or bool(name) != bool(of_run):
        raise typer.BadParameter("name a Canary and one of its runs, or a --file")

    async def show(place: Place) -> int:
        from serinus.cli import records, recounting, session

        if file:
            record = _read(file)
        else:
            async with session.cluster(place) as (kube, where):
                record = await records.record(kube, await session.read_canary(kube, where, name), of_run)
        from serinus.analysis.replay import replay as computed

        try:
            found = computed(record)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as problem:
            raise Stop(f"This is no record of a run that can be read: {problem!r}", Exit.REFUSED) from problem
        if output == "json":
            dump(recounting.replayed_json(record, found), Output.JSON)
        elif output:
            from serinus.cli.run_page import page

            sys.stdout.write(page(record, found))
        else:
            console().print(recounting.replayed(record, found), end="")
        return Exit.REFUSED if found.differences else Exit.DONE

    run(show(Place(kubeconfig, context, namespace)))


def _read(file: str) -> Object:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        record: Object = json.loads(text)
    except OSError as problem:
        raise Stop(f"{file} cannot be read: {problem.strerror}", Exit.USAGE) from problem
    except ValueError as problem:
        raise Stop(f"{file} is not JSON: {problem}", Exit.USAGE) from problem
    return record
