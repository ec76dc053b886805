"""Kopf: watches, and five-line handlers that feed the controller. Nothing is decided and nothing is called here.

Only ``on.event`` handlers: they write nothing onto the objects, and a restart sees every object again. Why not timers,
daemons, indices or ``on.update``: they cost annotations, finalizers, memory and start-up time, and act on stale views.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import kopf

from serinus.api.names import GROUP, LABEL_CANARY, LABEL_OWNER, VERSION
from serinus.controller.controller import Controller

registry = kopf.OperatorRegistry()


class NothingRemembered(kopf.DiffBaseStorage):
    """Remembers nothing of an object, which is all that ``on.event`` needs.

    Kopf's own storages copy an object twice at each of its events, to tell handlers of other kinds what changed.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return an empty essence."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Return that there is none."""
        return None

    def store(self, **_: Any) -> None:
        """Do nothing."""


def settings() -> kopf.OperatorSettings:
    """Return Kopf's settings: no scanning of definitions, no Events of its own, short time-outs, filtered watches."""
    chosen = kopf.OperatorSettings()
    chosen.scanning.disabled = True
    chosen.posting.enabled = False
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 5
    chosen.networking.error_backoffs = (0.5, 1, 2, 4, 8)
    chosen.networking.enforce_retry_after = True
    chosen.watching.server_timeout = 300
    chosen.watching.connect_timeout = 5
    chosen.watching.chunk_size = 100
    chosen.queueing.idle_timeout = 0.1  # so long a worker keeps its object's last body; a thousand of them are large
    chosen.queueing.error_delays = (1, 2, 5, 10, 30, 60)
    chosen.peering.standalone = True
    chosen.persistence.diffbase_storage = NothingRemembered()
    return chosen


async def watch(controller: Any, end: Callable[[], object]) -> None:
    """Let Kopf watch, and call its handlers, until cancelled; SIGTERM and SIGINT call ``end``.

    Kopf takes these signals for itself when it starts. It would wait five seconds then for whatever else runs in the
    loop, which is most of us; so they are taken back once it is ready. When it fails, its error is raised.
    """
    ready = asyncio.Event()

    async def take_signals() -> None:
        await ready.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, end)

    os.environ.setdefault("USER", "serinus")  # Kopf asks for a user's name, which a uid in a pod has not
    async with asyncio.TaskGroup() as both:
        both.create_task(take_signals())
        watching = kopf.operator(
            registry=registry,
            settings=settings(),
            memo=kopf.Memo(controller=controller),
            clusterwide=True,
            standalone=True,
            ready_flag=ready,
        )
        both.create_task(watching)


@kopf.on.event(GROUP, VERSION, "canaries", registry=registry)
async def canary(body: kopf.Body, type: str | None, memo: Any, **_: Any) -> None:  # noqa: A002 - Kopf's name
    """A Canary appeared, changed or went."""
    controller: Controller = memo.controller
    controller.saw_canary(dict(body), deleted=type == "DELETED")


@kopf.on.event(GROUP, VERSION, "trafficpolicies", registry=registry)
async def policy(body: kopf.Body, type: str | None, memo: Any, **_: Any) -> None:  # noqa: A002
    """A TrafficPolicy appeared, changed or went."""
    controller: Controller = memo.controller
    controller.saw_policy(dict(body), deleted=type == "DELETED")


@kopf.on.event("apps", "v1", "deployments", labels={LABEL_CANARY: kopf.PRESENT}, registry=registry)
async def deployment(body: kopf.Body, memo: Any, **_: Any) -> None:
    """A target changed."""
    controller: Controller = memo.controller
    controller.saw_deployment(dict(body))


@kopf.on.event("apps", "v1", "replicasets", labels={LABEL_OWNER: kopf.PRESENT}, registry=registry)
async def twin(body: kopf.Body, labels: kopf.Labels, memo: Any, **_: Any) -> None:
    """A candidate's ReplicaSet changed."""
    controller: Controller = memo.controller
    controller.saw_owned(dict(body), labels[LABEL_OWNER])


@kopf.on.event("", "v1", "services", registry=registry)
async def service(body: kopf.Body, type: str | None, memo: Any, **_: Any) -> None:  # noqa: A002
    """A Service appeared, changed or went."""
    controller: Controller = memo.controller
    controller.saw_service(dict(body), deleted=type == "DELETED")


@kopf.on.event("", "v1", "pods", registry=registry)
async def pod(body: kopf.Body, type: str | None, memo: Any, **_: Any) -> None:  # noqa: A002
    """A pod appeared, changed or went."""
    controller: Controller = memo.controller
    controller.saw_pod(dict(body), deleted=type == "DELETED")


@kopf.on.event("", "v1", "namespaces", registry=registry)
async def namespace(body: kopf.Body, type: str | None, memo: Any, **_: Any) -> None:  # noqa: A002
    """A namespace appeared, changed or went."""
    controller: Controller = memo.controller
    controller.saw_namespace(dict(body), deleted=type == "DELETED")


@kopf.on.login(registry=registry)
def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Log in as the pod's service account, else by the kubeconfig."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
