"""The commands. Each imports what it needs when it is called, so that ``--help`` is there at once."""

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from serinus.cli import faults, looking_back, simulating
from serinus.cli.options import Context, Format, Kubeconfig, Name, Namespace, Output, Timeout, Wait
from serinus.cli.options import console as _console
from serinus.cli.options import dump as _dump
from serinus.cli.options import run as _run
from serinus.cli.session import Exit, Object, Place, Stop

if TYPE_CHECKING:
    from serinus.api.commands import Verb

app = typer.Typer(
    help="Releases through a canary: see how they stand, and say how they go on.",
    epilog="Exit status: 0 done or promoted, 1 rolled back or a problem found, 2 wrong usage, 3 time-out, "
    "4 no cluster or no such Canary.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(looking_back.app)
app.add_typer(simulating.app)
app.add_typer(faults.app)


@app.command()
def status(
    name: Name,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Format = None,
) -> None:
    """Show how a release stands: revision, step, weight, every metric, and what it waits for."""

    async def show(place: Place) -> int:
        from serinus.cli import session, view
        from serinus.cli.watching import wall_clock

        async with session.cluster(place) as (kube, where):
            canary = await session.read_canary(kube, where, name)
        if output in (Output.JSON, Output.YAML):
            _dump(canary, output)
        elif output is Output.WIDE:
            sys.stdout.write(
                view.table([[*view.HEADINGS, *view.WIDE], view.row(canary, wall_clock(), wide=True)]) + "\n"
            )
        else:
            _console().print(view.tree(canary, wall_clock()))
        return Exit.DONE

    _run(show(Place(kubeconfig, context, namespace)))


@app.command()
def watch(
    name: Name,
    until_settled: Annotated[
        bool, typer.Option("--until-settled", help="End with the verdict; it is the exit status.")
    ] = False,
    timeout: Timeout = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Watch a release: live on a terminal, one line per change elsewhere."""
    timeout_s = _seconds(timeout)
    from serinus.cli import watching

    place = Place(kubeconfig, context, namespace)
    _run(watching.watch(place, name, until_settled=until_settled, timeout_s=timeout_s, console=_console()))


@app.command("list")
def list_(
    all_namespaces: Annotated[bool, typer.Option("-A", "--all-namespaces", help="In all namespaces.")] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    output: Format = None,
) -> None:
    """List Canaries."""

    async def show(place: Place) -> int:
        from serinus.cli import session

        async with session.cluster(place) as (kube, where):
            canaries = await session.list_canaries(kube, None if all_namespaces else where)
        if output in (Output.JSON, Output.YAML):
            _dump({"apiVersion": "v1", "kind": "List", "items": canaries}, output)
        elif canaries:
            sys.stdout.write(_rows(canaries, all_namespaces, output is Output.WIDE) + "\n")
        else:
            scope = "in this cluster" if all_namespaces else f"in namespace {where}; -A lists all namespaces"
            sys.stderr.write(f"There is no Canary {scope}. See examples/ for one to apply.\n")
        return Exit.DONE

    _run(show(Place(kubeconfig, context, namespace)))


@app.command()
def promote(
    name: Name,
    full: Annotated[bool, typer.Option("--full", help="Pass all remaining steps, not only the present one.")] = False,
    wait: Wait = False,
    timeout: Timeout = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Pass the present step without waiting for its time or its evidence."""
    _ask("promote", name, wait, timeout, Place(kubeconfig, context, namespace), full=full)


@app.command()
def abort(
    name: Name,
    wait: Wait = False,
    timeout: Timeout = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Roll the run back."""
    _ask("abort", name, wait, timeout, Place(kubeconfig, context, namespace))


@app.command()
def pause(
    name: Name,
    wait: Wait = False,
    timeout: Timeout = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Stay at the present step; the candidate is still judged."""
    _ask("pause", name, wait, timeout, Place(kubeconfig, context, namespace))


@app.command()
def resume(
    name: Name,
    wait: Wait = False,
    timeout: Timeout = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Go on after a pause."""
    _ask("resume", name, wait, timeout, Place(kubeconfig, context, namespace))


@app.command()
def retry(
    name: Name,
    wait: Wait = False,
    timeout: Timeout = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Begin a new run with the revision that was rolled back."""
    _ask("retry", name, wait, timeout, Place(kubeconfig, context, namespace))


@app.command()
def approve(
    name: Name,
    wait: Wait = False,
    timeout: Timeout = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Approve the step that waits for it."""
    _ask("approve", name, wait, timeout, Place(kubeconfig, context, namespace))


@app.command()
def lint(
    files: Annotated[list[str], typer.Argument(help='Files or folders; "-" is standard input.', metavar="FILE...")],
    in_cluster: Annotated[
        bool, typer.Option("--cluster", help="Also look at target, Services, budgets and quotas in the cluster.")
    ] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Tell every problem of the Canaries and TrafficPolicies in files; 1 is the exit status when there is one."""

    async def check() -> int:
        from serinus.cli import lint as rules

        documents = rules.read(files)
        found = rules.lint(documents)
        if in_cluster:
            from serinus.cli.lint_cluster import lint_cluster

            found += await lint_cluster(Place(kubeconfig, context, namespace), documents)
        for one in found:
            sys.stdout.write(f"{one}\n")
        problems = sum(not one.hint for one in found)
        if not documents:
            raise Stop(f"There is no Canary and no TrafficPolicy in {', '.join(files)}.", Exit.REFUSED)
        resources = f"{len(documents)} resource{'' if len(documents) == 1 else 's'}"
        sys.stderr.write(f"{resources}, {problems or 'no'} problem{'' if problems == 1 else 's'}.\n")
        return Exit.REFUSED if problems else Exit.DONE

    _run(check())


@app.command()
def bench(
    subset: Annotated[
        Literal["ci", "full", "gate"],
        typer.Option(help="What is played: two minutes' worth, all of it, or the fault gate alone."),
    ] = "ci",
    seed: Annotated[int, typer.Option(help="Of the simulated worlds; the same seed gives the same table.")] = 1,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Releases of each good scenario; of a bad one half as many are played.")
    ] = None,
    policies: Annotated[
        list[str] | None, typer.Option(help="Only this policy; may be given several times.", metavar="NAME")
    ] = None,
    output: Annotated[
        Literal["markdown", "json"], typer.Option("-o", "--output", help="How the table is written.")
    ] = "markdown",
    processes: Annotated[int, typer.Option(min=1, help="How many work side by side.")] = 2,
) -> None:
    """Compare the engine with the rules of its peers in simulated releases; 1 is the exit status below a bar."""

    async def play() -> int:
        from serinus.cli import bench as benching

        return benching.bench(subset, seed, runs, policies or [], output, processes)

    _run(play())


@app.command()
def version() -> None:
    """Print the version."""
    from serinus import __version__

    sys.stdout.write(f"serinus {__version__}\n")


@app.command()
def operator() -> None:
    """Run the operator, in the cluster that this pod is in or that KUBECONFIG names."""
    from serinus.run import run

    raise typer.Exit(run())


def _ask(verb: "Verb", name: str, wait: bool, timeout: str, place: Place, *, full: bool = False) -> None:
    timeout_s = _seconds(timeout)
    from serinus.cli.asking import ask

    _run(ask(place, name, verb, console=_console(), full=full, wait=wait, timeout_s=timeout_s))


def _seconds(timeout: str) -> float | None:
    from serinus.api.base import seconds

    try:
        return seconds(timeout) if timeout else None
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--timeout") from problem


def _rows(canaries: list[Object], all_namespaces: bool, wide: bool) -> str:
    from serinus.cli import view
    from serinus.cli.watching import wall_clock

    now = wall_clock()
    rows = [[*view.HEADINGS, *(view.WIDE if wide else ())]] + [view.row(one, now, wide=wide) for one in canaries]
    if all_namespaces:
        spaces = ["NAMESPACE", *(one["metadata"]["namespace"] for one in canaries)]
        rows = [[space, *cells] for space, cells in zip(spaces, rows, strict=True)]
    return view.table(rows)
