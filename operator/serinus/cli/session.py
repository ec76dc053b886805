"""What every command needs: a cluster, a Canary in it; a sentence and an exit status when one of them is missing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serinus.kube.client import Kube

Object = dict[str, Any]


class Exit(IntEnum):
    """The exit statuses, which scripts rely on."""

    DONE = 0  # promoted, or done
    REFUSED = 1  # rolled back, aborted, or a problem was found
    USAGE = 2
    TIMEOUT = 3
    MISSING = 4  # no cluster, no such Canary, or no right to it


class Stop(Exception):  # noqa: N818 - not an error of ours: the command ends with this sentence
    """Ends the command with a sentence and an exit status."""

    def __init__(self, sentence: str, status: Exit = Exit.MISSING):
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status


@dataclass(frozen=True, slots=True)
class Place:
    """Where the user wants to look: kubeconfig, context and namespace; empty is the kubeconfig's own."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""


@asynccontextmanager
async def cluster(place: Place) -> AsyncIterator[tuple["Kube", str]]:
    """Give a client of the cluster, and the namespace that is meant.

    Raises:
        KubeError: there is no usable kubeconfig.
    """
    import logging

    import structlog

    from serinus.kube.client import KubeClient

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    async with await KubeClient.connect(place.kubeconfig or None, place.context or None) as kube:
        yield kube, place.namespace or kube.namespace


NOT_INSTALLED = (
    "This cluster does not know the kind Canary: Serinus is not installed in it. Install it (see Install in the"
    " README), or choose another cluster with --context or --kubeconfig."
)


async def read_canary(kube: "Kube", namespace: str, name: str) -> Object:
    """Return a Canary.

    Raises:
        Stop: there is none of that name; the sentence says which there are.
    """
    from serinus.kube.errors import NotFound
    from serinus.kube.kinds import CANARY

    try:
        return await kube.get(CANARY, name, namespace)
    except NotFound:
        others = await list_canaries(kube, namespace)
    names = ", ".join(sorted(other["metadata"]["name"] for other in others))
    known = f"There are: {names}." if names else "There is none at all there; `serinus list -A` shows all others."
    raise Stop(f"There is no Canary {name} in namespace {namespace}. {known}")


async def list_canaries(kube: "Kube", namespace: str | None) -> list[Object]:
    """Return all Canaries of a namespace, or of all.

    Raises:
        Stop: the cluster does not know what a Canary is.
    """
    from serinus.kube.errors import NotFound
    from serinus.kube.kinds import CANARY

    try:
        return await kube.list(CANARY, namespace)
    except NotFound as problem:
        raise Stop(NOT_INSTALLED) from problem
