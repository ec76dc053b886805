"""The command ``serinus``, which is also the kubectl plugin ``kubectl serinus``."""

import os
import signal
import sys
from pathlib import PurePath


def main() -> None:
    """Run the command; the program's name in its texts is the one that it was called by."""
    if os.getpid() == 1:  # a container's first process never sees a signal that it has no handler for
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    from serinus.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")  # a terminal without our characters gets question marks, not a traceback
    called = PurePath(sys.argv[0]).stem
    app(prog_name="kubectl serinus" if called.startswith(("kubectl-serinus", "kubectl_serinus")) else "serinus")
