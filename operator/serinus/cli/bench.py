"""``serinus bench``: the engine beside its peers, in simulated releases. Exit status 1 if a bar is not met."""

import json
import sys
from collections.abc import Sequence
from multiprocessing import get_context

from serinus.cli.session import Exit, Stop
from serinus.simulation.bench import CONTESTANTS, Job, Subset, jobs, run, tabulate
from serinus.simulation.report import document, markdown
from serinus.simulation.scoring import Cell


def bench(subset: str, seed: int, runs: int | None, policies: Sequence[str], output: str, processes: int) -> int:
    """Play a subset, write what was found to standard output, and return the exit status.

    Args:
        subset: ``ci`` or ``full``, or ``gate`` for the fault gate alone, as Markdown.
        seed: of the simulated worlds.
        runs: releases of each good scenario; None means as many as the subset has.
        policies: names of policies; all, when there is none.
        output: ``markdown`` or ``json``.
        processes: how many work side by side.

    Raises:
        Stop: there is no policy of such a name.
    """
    if unknown := [name for name in policies if name not in CONTESTANTS]:
        raise Stop(f'There is no policy "{unknown[0]}"; there are: {"; ".join(CONTESTANTS)}.', Exit.USAGE)
    if subset == "gate":
        return _gate(runs or 200, seed)
    chosen = Subset(subset)
    table = tabulate(chosen, seed, _played(jobs(chosen, seed, runs, policies), processes))
    if output == "json":
        sys.stdout.write(json.dumps(document(table), indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(markdown(table))
    for bar in table.unmet:
        sys.stderr.write(f"Not met: {bar.asked}: {bar.found}.\n")
    return Exit.REFUSED if table.unmet else Exit.DONE


def _gate(runs: int, seed: int) -> int:
    from serinus.simulation.faultpairs import LOADS, PAIRS, PairCell, cells, pair_bars, pair_table

    found: list[PairCell] = []
    for cell in cells(runs, seed):
        found.append(cell)
        sys.stderr.write(f"{len(found)} of {len(LOADS) * len(PAIRS)}  {cell.pair.name} at {cell.rate:g}/s\n")
    bars = pair_bars(found)
    told = {True: "met", False: "**not met**", None: "open"}
    sys.stdout.write("".join(f"* {bar.asked}: {bar.found}: {told[bar.met]}\n" for bar in bars) + "\n")
    sys.stdout.write(pair_table(found))
    return Exit.REFUSED if any(bar.met is False for bar in bars) else Exit.DONE


def _played(waiting: list[Job], processes: int) -> list[Cell]:
    """Return the cells in the order of their jobs. The long ones are played first, so that none is waited for."""
    order = sorted(range(len(waiting)), key=lambda index: (waiting[index].rate, -waiting[index].runs))
    cells: dict[int, Cell] = {}
    if processes < 2:
        for index in order:
            cells[index] = run(waiting[index])
            _progress(len(cells), waiting, index)
    else:
        with get_context("spawn").Pool(processes) as pool:
            found = pool.imap(run, [waiting[index] for index in order])
            for index, cell in zip(order, found, strict=True):
                cells[index] = cell
                _progress(len(cells), waiting, index)
    return [cells[index] for index in range(len(waiting))]


def _progress(done: int, waiting: list[Job], index: int) -> None:
    sys.stderr.write(f"{done} of {len(waiting)}  {waiting[index].what()}\n")
