"""What a person sees while the cluster comes up: each step with its seconds, and refusals as sentences."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Refusal(Exception):  # noqa: N818 - it is a decision to be told, not a failure of the program
    """Something that cannot be done here; its text is the sentence that the user reads.

    Args:
        sentence: what is wrong, where, and what to do about it.
        exit_code: 1 as a rule; 3 when this machine can have no cluster at all.
    """

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


NO_CLUSTER_HERE = 3
"""Exit code of a machine that can have no cluster; the Makefile then runs what needs none."""


def say(text: str) -> None:
    """Prints one line at once, also into a pipe."""
    print(text, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Prints the step's name when it begins (on a terminal) and its seconds when it ends."""
    began = time.monotonic()
    if sys.stdout.isatty():
        print(f"  {text} …", end="", flush=True)
    try:
        yield
    except BaseException:
        if sys.stdout.isatty():
            print(flush=True)
        raise
    mark = "\r\033[K" if sys.stdout.isatty() else ""
    say(f"{mark}  {text}: {time.monotonic() - began:.1f} s")


class Meter:
    """A long step's progress: on a terminal a line that is rewritten, elsewhere a line every `every_s` seconds."""

    def __init__(self, text: str, every_s: float = 15.0) -> None:
        self.text = text
        self.every_s = every_s if not sys.stdout.isatty() else 0.5
        self.began = time.monotonic()
        self.told = self.began

    def tell(self, done: float, total: float) -> None:
        """Shows how much is done and when the rest will be, if enough time has passed since the last word."""
        now = time.monotonic()
        if now - self.told < self.every_s or total <= 0:
            return
        self.told = now
        line = f"    {self.text}: {100 * done / total:3.0f} %{remaining(done, total, now - self.began)}"
        if sys.stdout.isatty():
            print(f"\r\033[K{line}", end="", flush=True)
        else:
            say(line)


def remaining(done: float, total: float, elapsed_s: float) -> str:
    """An estimate of what is left, as words to append; nothing before a twentieth is done."""
    if done < total / 20 or elapsed_s < 1:
        return ""
    left_s = elapsed_s * (total - done) / done
    return f", about {left_s / 60:.0f} min left" if left_s > 90 else f", about {left_s:.0f} s left"
