"""Requests of people: each is one annotation on the Canary, carried out exactly once, acknowledged in status."""

import json
from dataclasses import dataclass
from typing import Literal, get_args

from serinus.api.names import ANNOTATION_COMMAND_PREFIX

Verb = Literal["promote", "abort", "pause", "resume", "retry", "approve"]
VERBS: tuple[str, ...] = get_args(Verb)
_FIELDS = {"verb": str, "run": str, "step": int, "full": bool, "by": str, "at": str}


@dataclass(frozen=True, slots=True)
class Command:
    """One request. It is about the place where its author saw the release: ``run`` and ``step``.

    A request that arrives when the release is elsewhere is acknowledged as having nothing to do, so sending it twice
    does it once. ``full`` on ``promote`` passes all steps.
    """

    token: str
    verb: Verb
    run: str = ""
    step: int = -1
    full: bool = False
    by: str = ""
    at: str = ""

    def annotation(self) -> tuple[str, str]:
        """Return the annotation's key and value."""
        body = {"verb": self.verb, "run": self.run, "step": self.step, "full": self.full, "by": self.by, "at": self.at}
        return ANNOTATION_COMMAND_PREFIX + self.token, json.dumps(body)


def commands(annotations: dict[str, str]) -> list[Command]:
    """Return the requests among a Canary's annotations, oldest first; what cannot be read as one has verb ``""``."""
    found = []
    for key, value in annotations.items():
        if not key.startswith(ANNOTATION_COMMAND_PREFIX):
            continue
        token = key.removeprefix(ANNOTATION_COMMAND_PREFIX)
        try:
            body = json.loads(value)
            fields = {k: body[k] for k in _FIELDS if k in body}
            if any(type(value) is not _FIELDS[k] for k, value in fields.items()):
                raise TypeError(f"a field of {key} has the wrong type")
            found.append(Command(token, **fields))
        except (ValueError, TypeError):
            found.append(Command(token, ""))  # type: ignore[arg-type]
    return sorted(found, key=lambda command: (command.at, command.token))
