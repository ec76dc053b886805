"""What is published now, by key and by name: the one thing that all streams share."""

from dataclasses import dataclass

from serinus.mesh.ads_wire import CDS, EDS, LDS, RDS, TYPES, resource_part
from serinus.mesh.model import Resource


@dataclass(frozen=True, slots=True)
class Entry:
    """One published resource: whose it is, and its bytes as every response carries them."""

    key: str
    resource: Resource
    part: bytes

    @property
    def version(self) -> str:
        """The hash of its content."""
        return self.resource.version


@dataclass(frozen=True, slots=True)
class Service:
    """The entries of one key, by type."""

    clusters: tuple[Entry, ...] = ()
    endpoints: tuple[Entry, ...] = ()
    listeners: tuple[Entry, ...] = ()
    routes: tuple[Entry, ...] = ()


class Catalogue:
    """The present resources of all keys. Names are unique per type; an endpoint assignment has its cluster's name.

    ``owner`` also remembers whose a withdrawn resource was, because proxies still have it for a while.
    """

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {type_url: {} for type_url in TYPES}
        self._services: dict[str, Service] = {}
        self._owners: dict[str, dict[str, str]] = {type_url: {} for type_url in TYPES}

    def publish(self, key: str, resources: tuple[Resource, ...]) -> tuple[tuple[str, str], ...] | None:
        """Make ``resources`` the whole content of ``key``; return type and name of what is gone, None for no change.

        Raises:
            ValueError: a type that no proxy is sent, a name given twice, or one that another key has.
        """
        fresh: dict[tuple[str, str], Resource] = {}
        for resource in resources:
            self._check(key, resource, fresh)
            fresh[resource.type_url, resource.name] = resource
        previous = {(e.resource.type_url, e.resource.name): e for e in self._all(key)}
        if {name: entry.resource for name, entry in previous.items()} == fresh:
            return None
        gone = tuple(previous.keys() - fresh.keys())
        for type_url, name in gone:
            del self._entries[type_url][name]
        for (type_url, name), resource in fresh.items():
            had = previous.get((type_url, name))
            entry = had if had and had.resource == resource else Entry(key, resource, resource_part(resource))
            self._entries[type_url][name] = entry
            self._owners[type_url][name] = key
        if fresh:
            self._services[key] = Service(*(self._of_type(fresh, type_url) for type_url in (CDS, EDS, LDS, RDS)))
        else:
            self._services.pop(key, None)
        return gone

    def keys(self) -> tuple[str, ...]:
        """Return all published keys."""
        return tuple(self._services)

    def service(self, key: str) -> Service:
        """Return what ``key`` has published; a withdrawn key has nothing."""
        return self._services.get(key, _NOTHING)

    def entry(self, type_url: str, name: str) -> Entry | None:
        """Return the present resource with this name."""
        return self._entries[type_url].get(name)

    def owner(self, type_url: str, name: str) -> str | None:
        """Return the key that publishes this name, or that did so last."""
        return self._owners[type_url].get(name)

    def _check(self, key: str, resource: Resource, fresh: dict[tuple[str, str], Resource]) -> None:
        if resource.type_url not in self._entries:
            raise ValueError(f"{key}: resources of type {resource.type_url} are not served")
        if (resource.type_url, resource.name) in fresh:
            raise ValueError(f"{key}: two resources of type {resource.type_url} are named {resource.name}")
        there = self._entries[resource.type_url].get(resource.name)
        if there is not None and there.key != key:
            raise ValueError(f"{key}: the resource {resource.name} of type {resource.type_url} belongs to {there.key}")

    def _all(self, key: str) -> tuple[Entry, ...]:
        service = self.service(key)
        return service.clusters + service.endpoints + service.listeners + service.routes

    def _of_type(self, fresh: dict[tuple[str, str], Resource], type_url: str) -> tuple[Entry, ...]:
        return tuple(self._entries[type_url][name] for of_type, name in fresh if of_type == type_url)


_NOTHING = Service()
