"""A real cluster for every end-to-end test; the operator is installed once, as a user would install it."""

import os
import uuid
from collections.abc import Callable, Generator, Iterator

import pytest
from driving import crashes, wait_operator
from harness import ROOT, SYSTEM, App, Cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what the cluster says about it: the Canaries, and the operator's last lines."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if call.when == "call" and call.excinfo and cluster:
        report.sections += [
            ("canaries", cluster.kubectl("get", "canaries", "-A", "-o", "yaml", check=False)),
            ("operator", cluster.kubectl("logs", "-n", SYSTEM, "deployment/serinus", "--tail=80", check=False)),
        ]
    return report


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster, with Serinus installed from ``deploy/base``."""
    if "KUBECONFIG" not in os.environ:
        pytest.fail("no cluster: make e2e brings one up, or set KUBECONFIG to one of yours")
    cluster = Cluster()
    cluster.kubectl("apply", "-k", str(ROOT / "deploy" / "base"))
    if not os.environ.get("SERINUS_INSTALLED"):  # a second run against the same operator need not restart it
        cluster.kubectl("rollout", "restart", "deployment/serinus", "-n", SYSTEM)
    wait_operator(cluster)
    yield cluster
    cluster.close()


@pytest.fixture(autouse=True)
def upright(cluster: Cluster) -> Iterator[None]:
    """Whatever a test does, the operator does not crash; some tests kill it, which is not its doing."""
    before = crashes(cluster)
    yield
    assert crashes(cluster) in (before, [])


@pytest.fixture
def kubectl(cluster: Cluster) -> Callable[..., str]:
    """``kubectl(*args, input=None, check=True)``: what it prints."""

    def run(*args: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002 - subprocess's name
        return cluster.kubectl(*args, stdin=input, check=check)

    return run


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace, outside of the mesh."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def app(cluster: Cluster) -> Iterator[App]:
    """An application in a namespace of its own, not created yet."""
    app = App(cluster, f"t-{uuid.uuid4().hex[:8]}")
    yield app
    app.close()


another = app
"""One more, beside the first."""
