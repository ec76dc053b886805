"""What the commands have in common: their arguments, and how they end."""

import asyncio
import json
import sys
from collections.abc import Coroutine
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serinus.cli.session import Exit, Stop

if TYPE_CHECKING:
    from rich.console import Console


class Output(StrEnum):
    """How objects are written."""

    JSON = "json"
    YAML = "yaml"
    WIDE = "wide"


Name = Annotated[str, typer.Argument(help="Name of the Canary.")]
Namespace = Annotated[str, typer.Option("-n", "--namespace", help="Namespace; else that of the context.")]
Context = Annotated[str, typer.Option(help="Context of the kubeconfig.")]
Kubeconfig = Annotated[str, typer.Option(help="Path of the kubeconfig; else KUBECONFIG.")]
Format = Annotated[Output | None, typer.Option("-o", "--output", help="Another form.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the verdict; it is the exit status.")]
Timeout = Annotated[
    str, typer.Option(help='How long to wait at most, for example "90s" or "1h"; 3 is the exit status.')
]


def run(command: Coroutine[Any, Any, int]) -> None:
    """Run a command to its exit status; what a user can mend is a sentence on standard error."""
    from serinus.kube.errors import KubeError

    try:
        code = asyncio.run(command)
    except Stop as stop:
        sys.stderr.write(f"{stop.sentence}\n")
        code = stop.status
    except KubeError as problem:
        sys.stderr.write(f"{problem.message[:1].upper()}{problem.message[1:]}\n")
        code = Exit.MISSING
    except KeyboardInterrupt:
        code = 130
    raise typer.Exit(int(code))


def console() -> "Console":
    """Return the terminal, or whatever standard output is."""
    from rich.console import Console

    return Console()


def dump(document: Any, output: Output) -> None:
    """Write a document to standard output."""
    if output is Output.JSON:
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return
    import yaml

    yaml.safe_dump(document, sys.stdout, sort_keys=False, allow_unicode=True)
