"""Which cluster to talk to, and as whom."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio import config as kube_config
from kubernetes.aio.client.configuration import Configuration

from serinus.kube.errors import KubeError

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_HOME = "~/.kube/config"
_ADVICE = "Set KUBECONFIG, or pass --kubeconfig and --context"


@dataclass(frozen=True, slots=True)
class Access:
    """An address and credentials. ``refresh`` fetches new credentials into ``configuration`` when they have expired.

    ``namespace`` is that of the kubeconfig's context, or of the pod that we run in.
    """

    configuration: Any
    namespace: str = "default"
    refresh: Callable[[], Awaitable[object]] | None = None


async def load(kubeconfig: str | None = None, context: str | None = None) -> Access:
    """Return access by ``kubeconfig``, else by KUBECONFIG, else as the pod that we run in, else by ``~/.kube/config``.

    Raises:
        KubeError: there is no usable configuration; the sentence says what to set.
    """
    chosen = kubeconfig or os.environ.get("KUBECONFIG", "")
    if not chosen and not context and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return _in_cluster()
    return await _by_file(_existing(chosen or _HOME), context)


def _in_cluster() -> Access:
    configuration = Configuration()
    try:
        kube_config.load_incluster_config(configuration)
        namespace = _OWN_NAMESPACE.read_text().strip()
    except (kube_config.ConfigException, OSError) as problem:
        raise KubeError(f"the service account of this pod cannot be used: {problem}") from problem
    return Access(configuration, namespace)


def _existing(paths: str) -> str:
    expanded = [str(Path(path).expanduser()) for path in paths.split(os.pathsep) if path]
    found = [path for path in expanded if Path(path).is_file()]
    if not found:
        raise KubeError(f"no cluster to talk to: there is no file {' or '.join(expanded)}. {_ADVICE}")
    return os.pathsep.join(found)


async def _by_file(paths: str, context: str | None) -> Access:
    configuration = Configuration()

    async def fetch() -> Any:
        try:
            return await kube_config.load_kube_config(
                paths, context, client_configuration=configuration, persist_config=False
            )
        except (kube_config.ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError) as problem:
            raise KubeError(f"no cluster to talk to: {paths} cannot be used: {problem}. {_ADVICE}") from problem

    current = (await fetch()).current_context["context"]
    return Access(configuration, current.get("namespace") or "default", fetch)
