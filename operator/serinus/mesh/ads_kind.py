"""What one proxy has of one type of resource, and what is on its way to it."""

from dataclasses import dataclass, field

from serinus.mesh.ads_catalogue import Entry

_MAX_RESPONSE_BYTES = 1 << 20
"""Of resources in one response; gRPC's default limit for a message is 4 MiB."""


@dataclass(slots=True)
class Kind:
    """What the proxy has of one type, by name. ``in_flight`` holds None for a removal."""

    requested: bool = False
    greeted: bool = False
    subscribed: set[str] = field(default_factory=set)
    known: dict[str, str] = field(default_factory=dict)
    in_flight: dict[str, str | None] = field(default_factory=dict)
    unanswered: dict[str, dict[str, str | None]] = field(default_factory=dict)
    rejected: dict[str, tuple[str, str]] = field(default_factory=dict)
    forced: set[str] = field(default_factory=set)
    leftover: set[str] = field(default_factory=set)
    suspects: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)

    def forget(self, name: str) -> None:
        """Take the name as never sent; an answer that is still to come no longer counts for it."""
        self.known.pop(name, None)
        self.rejected.pop(name, None)
        self.forced.discard(name)
        if name in self.in_flight:
            del self.in_flight[name]
            for sent in self.unanswered.values():
                sent.pop(name, None)


@dataclass(slots=True)
class Batch:
    """What goes out of one type in this turn."""

    upserts: list[Entry] = field(default_factory=list)
    removals: list[str] = field(default_factory=list)


def split(entries: list[Entry], suspects: set[str]) -> list[list[Entry]]:
    """Return the entries as they go into responses: suspects of each key apart, and none too large.

    A refusal is about a whole response. Sent again key by key, it shows whose it is.
    """
    groups: list[list[Entry]] = []
    apart: dict[str, list[Entry]] = {}
    size = _MAX_RESPONSE_BYTES
    for entry in entries:
        if entry.resource.name in suspects:
            apart.setdefault(entry.key, []).append(entry)
            continue
        if size + len(entry.part) > _MAX_RESPONSE_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(entry)
        size += len(entry.part)
    return [*groups, *apart.values()]
