"""Random histories of a release: people, controllers, kubelets and sidecars in any order, an operator that looks from
stale views and dies between any two writes. What must hold at every moment, and where every history must end.

The rules are those of the design ("Rules that no change may break"). ``HYPOTHESIS_PROFILE=long`` tries many more.
"""

import os
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serinus.api.canary import CanarySpec
from serinus.api.commands import VERBS
from serinus.api.names import ANNOTATION_COMMAND_PREFIX
from serinus.api.release import CanaryStatus, Phase
from serinus.api.status import Reason
from serinus.delivery import plan
from serinus.delivery.finishing import LAGGARDS_S

from .cluster import GOOD_VERSIONS, NEVER_READY, REVISIONS, VERSIONS, Cluster
from .world import OURS, a_spec, ordered

WINDOW_S = 3600.0
FIELDS = {"rollbackWindow": "1h", "progressDeadline": "1m"}
EXPERIMENT = {"name": "stock", "to": "stock", "reset": True, "share": 10, "recovery": "10s", "duration": "1m"}
PLANS: tuple[CanarySpec, ...] = (
    a_spec(**FIELDS),
    a_spec({"weight": 5}, {"approval": "look"}, {"weight": 60, "for": "10s"}, **FIELDS),
    a_spec({"approval": "look"}, {"weight": 50}, {"weight": 100}, **FIELDS),
    a_spec({"weight": 30}, {"weight": 30, "for": "20s"}, deadline="5m", onInconclusive="Promote", **FIELDS),
    a_spec({"weight": 20}, {"weight": 40}, deadline="2m", onInconclusive="Rollback", **FIELDS),
    a_spec({"weight": 25}, {"weight": 75}, candidate={"withoutLabels": ["team"]}, **FIELDS),
    a_spec({"weight": 30}, {"fault": "stock"}, {"weight": 60}, faults=[EXPERIMENT], **FIELDS),
)
INDEX = st.integers(0, 30)
SMALL = st.sampled_from(("deployment", "sets", "kubelet", "kubelet", "sidecar"))
MEANWHILE = st.tuples(st.sampled_from(("template", "scale", "abort", "promote", "controllers", "pod")), INDEX)


class Release(RuleBasedStateMachine):
    """One Canary's life. ``hurt`` is True while somebody broke something that only time mends."""

    @initialize(
        replicas=st.sampled_from((4, 1, 2, 5)),
        chosen=st.integers(0, len(PLANS) - 1),
        version=st.sampled_from(("v2", "v2", "v2", *VERSIONS)),
        looks=st.integers(0, 30),
        past=st.booleans(),
    )
    def begin(self, replicas: int, chosen: int, version: str, looks: int, *, past: bool) -> None:
        """A new Canary (few looks), or a release at any of its stages; with a ``past`` the version served before."""
        self.plan = PLANS[chosen]
        self.cluster = Cluster(self.plan, replicas)
        self.cluster.watchers.append(self._watch)
        self.hurt = False
        self.raced = self.edited = self.mixed = False
        self.floor = replicas
        self.may_run = {"v1"}
        self.weights: dict[str, list[int]] = {}
        self.handled: set[str] = set()
        self.passed: set[tuple[str, int]] = set()
        self.tokens = 0
        if past:
            self._promote_and_go_back(version)
        self.cluster.proceed(min(looks, 4))
        if looks > 4:
            self.cluster.set_template(version)
            self._proceed(looks - 4)

    # --- the operator and the cluster --------------------------------------------------------------

    @rule(what=st.lists(st.tuples(SMALL, INDEX), min_size=1, max_size=6))
    def controllers_work(self, what: list[tuple[str, int]]) -> None:
        for who, index in what:
            self._one(who, index)

    @rule(between=st.dictionaries(st.integers(0, 6), MEANWHILE, max_size=2))
    def operator_looks(self, between: dict[int, tuple[str, int]]) -> None:
        self.cluster.reconcile({number: self._meanwhile(*event) for number, event in between.items()})

    @rule(after=st.integers(0, 8))
    def operator_dies(self, after: int) -> None:
        self.cluster.reconcile(dies_after=after)

    @rule(looks=st.integers(1, 12))
    def all_goes_well(self, looks: int) -> None:
        self._proceed(looks)

    @rule(seconds=st.sampled_from((1, 5, 16, 61, 130, 4000)))
    def time_passes(self, seconds: float) -> None:
        behind = self.cluster.mesh().acknowledged < self.cluster.mesh().connected
        self.hurt = self.hurt or (behind and seconds >= LAGGARDS_S)
        self.cluster.tick(seconds)

    @rule()
    def all_comes_to_rest(self) -> None:
        if not self.cluster.slow and self.cluster.traffic:
            self._rest()

    # --- people ------------------------------------------------------------------------------------

    @rule(version=st.sampled_from((*VERSIONS, "v2", "v3")))
    def template_changes(self, version: str) -> None:
        self._change(version)

    @rule()
    def template_is_set_back(self) -> None:
        stable = self.cluster.status.stable
        back = next((version for version in VERSIONS if stable and REVISIONS[version] == stable.revision), "v1")
        self.cluster.set_template(back)

    @rule(replicas=st.sampled_from((0, 1, 2, 4, 5)))
    def target_is_scaled(self, replicas: int) -> None:
        self._scale(replicas)

    @rule(verb=st.sampled_from((*VERBS, "promote", "approve", "nonsense")), full=st.booleans(), twice=st.booleans())
    def person_asks(self, verb: str, *, full: bool, twice: bool) -> None:
        self._ask(verb, full=full, twice=twice)

    @rule(suspend=st.booleans())
    def suspension(self, *, suspend: bool) -> None:
        self.cluster.edit(self.plan.model_copy(update={"suspend": suspend}))

    @rule(chosen=st.integers(0, len(PLANS) - 2))
    def plan_is_edited(self, chosen: int) -> None:
        self.edited = True
        self.plan = PLANS[chosen]
        self.cluster.edit(self.plan)

    @rule(broken=st.booleans())
    def break_glass(self, *, broken: bool) -> None:
        self.cluster.glass(broken)
        if broken:
            self.cluster.resume()
            self.hurt = True

    # --- misfortune --------------------------------------------------------------------------------

    @rule(index=INDEX)
    def pod_crashes(self, index: int) -> None:
        self.hurt = True
        self.cluster.crash(index)

    @rule(index=st.integers(0, 2))
    def sidecar_is_slow(self, index: int) -> None:
        self.hurt = True
        self.cluster.slow.add(index)

    @rule()
    def sidecars_answer_again(self) -> None:
        self.cluster.slow.clear()

    @rule(traffic=st.booleans())
    def traffic(self, *, traffic: bool) -> None:
        self.cluster.traffic = traffic

    @rule(stopped=st.booleans())
    def faults_are_stopped(self, *, stopped: bool) -> None:
        self.cluster.stopped = stopped

    @rule()
    def twin_is_deleted_by_somebody(self) -> None:
        self.hurt = True
        self.cluster.remove_twin()

    @rule(version=st.sampled_from(GOOD_VERSIONS), sure=st.integers(0, 3))
    def target_is_created_anew(self, version: str, sure: int) -> None:
        if sure == 0:
            self.hurt = True
            self.cluster.recreate(version)

    @rule(sure=st.integers(0, 3))
    def canary_is_deleted(self, sure: int) -> None:
        if sure == 0:
            self.cluster.delete_canary()

    # --- what must hold at every moment ------------------------------------------------------------

    @invariant()
    def rules_hold(self) -> None:
        self._check()

    def _check(self) -> None:
        if not hasattr(self, "cluster") or self.hurt or self.cluster.published is None:
            return
        cluster, published = self.cluster, self.cluster.published
        run, floor = cluster.status.run, self.floor
        by_name = {pod.name: pod for pod in cluster.pods}
        self._faults_are_wanted()
        ours = {rs.uid for rs in cluster.sets if rs.owner == OURS}
        assert not [name for name in published.stable if by_name[name].set_uid in ours], "a twin serves as stable"
        for name in published.candidate:
            assert run is not None
            assert by_name[name].pod_hash == run.pod_hash
            assert by_name[name].containers_ready
        if self._set_back_while_adopted():
            self.mixed = True
            best = max(len(published.stable), len(published.candidate))
            assert best >= floor - floor // 4, "neither pool can take the requests"
            return
        if floor and published.weight:
            assert published.candidate, "requests are sent to a candidate without a ready pod"
        if published.weight == 100:
            assert len(published.candidate) >= floor, "all requests go to fewer pods than the target wishes"
        else:
            rolling = sum(rs.replicas > 0 for rs in cluster.own_sets()) > 1 or not self._target_at_rest()
            least = floor - floor // 4 if rolling else floor
            assert len(published.stable) >= least, "fewer stable endpoints than the target wishes"

    def _faults_are_wanted(self) -> None:
        """Calls fail in pods of an experiment alone, and only while the status that is written down says so."""
        trial, run = self.cluster.trial, self.cluster.status.run
        if trial is None or not trial.injected:
            return
        hurt = [pod for pod in self.cluster.pods if pod.pod_hash in trial.arms]
        assert not [pod.name for pod in hurt if pod.ready], "a pod that meets a fault serves everybody"
        assert run is not None
        assert not run.weight or trial.arms[0].startswith(run.pod_hash)

    def _set_back_while_adopted(self) -> bool:
        """Whether the stable template came back in the moment of adoption.

        The target's controller then takes the judged pods away at once, before anybody can know; requests to them are
        tried again on the stable pods until the next look has given these the route back.
        """
        status = self.cluster.status
        adopting = status.run is not None and status.run.stage == plan.ADOPT and status.phase is Phase.PROMOTING
        back = status.stable is not None and status.stable.revision == REVISIONS[self.cluster.deployment.version]
        return adopting and back

    def _target_at_rest(self) -> bool:
        target = self.cluster.gather().target
        return target is not None and (target.settled or target.paused)

    def _watch(self, what: str, about: Any) -> None:
        getattr(self, f"_on_{what}")(about)

    def _on_bypass(self, version: str) -> None:
        self.may_run.add(version)
        self.hurt = True

    def _on_native(self, version: str) -> None:
        assert version in self.may_run, f"the target starts pods of {version}, which nobody let through"

    def _on_release(self, deployment: Any) -> None:
        status = self.cluster.status
        run, revision = status.run, REVISIONS[deployment.version]
        final = status.phase is Phase.PROMOTING or status.suspended_phase is Phase.PROMOTING
        judged = run is not None and final and run.stage in (plan.RELEASE, plan.NATIVE) and run.revision == revision
        assert judged or self.cluster.known(revision, WINDOW_S), f"{deployment.version} is released unjudged"
        if run is not None and judged and run.stage == plan.NATIVE:
            self._all_have_everything()
        self.may_run.add(deployment.version)

    def _on_gone(self, deployment: Any) -> None:
        stable = self.cluster.status.stable
        if deployment.paused and stable is not None and not deployment.break_glass:
            if self.raced:
                return
            assert REVISIONS[deployment.version] != stable.revision, "the stable version was left paused"
            assert any("kubectl rollout resume" in event.message for event in self.cluster.events)

    def _on_adopt(self, _: Any) -> None:
        self._all_have_everything()

    def _all_have_everything(self) -> None:
        if not self.hurt:
            for index, held in enumerate(self.cluster.sidecars):
                assert not self.cluster.connected[index] or (held is not None and held.weight == 100)

    def _on_delete(self, twin: Any) -> None:
        assert twin.owner == OURS
        names = {pod.name for pod in self.cluster.pods_of(twin)}
        for index, held in enumerate(self.cluster.sidecars):
            if not self.hurt and held is not None and self.cluster.connected[index] and held.weight:
                assert not held.candidate & names, "pods are taken away that a sidecar still sends requests to"
            if not self.hurt and held is not None and self.cluster.connected[index] and held.arms_serve:
                assert not (held.arms[0] | held.arms[1]) & names, "an experiment's pods go while they get requests"

    def _on_status(self, change: tuple[CanaryStatus, CanaryStatus]) -> None:
        before, after = change
        if after.run is not None:
            weights = self.weights.setdefault(after.run.id, [])
            if not weights or weights[-1] != after.run.weight:
                weights.append(after.run.weight)
            rising = weights[:-1] if weights[-1] == 0 else weights
            assert rising == sorted(rising), f"weights fell in the middle of a run: {weights}"
            allowed = {0, 100} | {step.weight for spec in PLANS for step in spec.strategy.steps if step.weight}
            assert set(weights) <= allowed
        new = {command.token for command in after.commands} - {command.token for command in before.commands}
        assert not new & self.handled, "a request was dealt with twice"
        assert len({command.token for command in after.commands}) == len(after.commands), "a request was done twice"
        self.handled |= new
        for command in after.commands:
            if command.token in new and command.verb == "promote" and "is passed" in command.result:
                place = (after.run.id if after.run else "", before.run.step if before.run else 0)
                assert place not in self.passed or self.edited, "one step was passed twice"
                self.passed.add(place)

    # --- where it must end -------------------------------------------------------------------------

    def _rest(self) -> None:
        cluster = self.cluster
        cluster.settle()
        self._check()
        events, status = list(cluster.events), cluster.status
        if cluster.gone or cluster.waits:
            return
        for _ in range(2):
            assert not cluster.reconcile(), "something is written again and again"
        assert (cluster.status, cluster.events) == (status, events), "something changes though nothing happened"
        assert not cluster.waiting() - cluster.handled() or cluster.stalled or status.phase is Phase.SUSPENDED
        if status.phase in (Phase.READY, Phase.FAILED) and not (self.hurt or self.mixed) and status.stable is not None:
            serving = {REVISIONS[pod.version] for pod in cluster.pods if pod.alive}
            assert serving <= {status.stable.revision}, "what serves is not what the status calls stable"
        if status.phase is Phase.READY and cluster.reason is not Reason.BYPASSED and "rolls out" not in status.message:
            self._nothing_is_left()
            target = cluster.gather().target
            assert target is not None
            assert not target.paused
            assert status.stable is not None
            assert target.revision == status.stable.revision
            self._whole_again()
        if status.phase is Phase.FAILED and cluster.reason is not Reason.BYPASSED:
            self._nothing_is_left()
            assert cluster.deployment.paused
            assert cluster.stalled

    def _whole_again(self) -> None:
        self.hurt = self.cluster.deployment.break_glass or self.cluster.deployment.version == NEVER_READY
        self.floor = self.cluster.deployment.replicas

    def _nothing_is_left(self) -> None:
        cluster = self.cluster
        assert not [rs.name for rs in cluster.sets if rs.owner == OURS], "a twin is left"
        assert not [pod.name for pod in cluster.pods if pod.tracked and pod.alive], "a pod is still tracked"
        assert not [pod.name for pod in cluster.pods if pod.alive and not pod.ready and pod.version != NEVER_READY]
        assert cluster.trial is None
        assert not cluster.frozen
        assert not cluster.candidate_service
        assert cluster.published is None or cluster.published.weight == 0

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        cluster.slow.clear()
        cluster.traffic = True
        cluster.stopped = False
        cluster.edit(self.plan)
        self._rest()
        cluster.delete_canary()
        cluster.settle()
        cluster.calm()
        assert cluster.gone
        self._nothing_is_left()
        deployment = cluster.deployment
        assert not deployment.labelled
        stable = cluster.status.stable
        if (
            not self.hurt
            and deployment.version != NEVER_READY
            and not (stable and stable.revision == REVISIONS[NEVER_READY])
        ):
            ready = sum(pod.ready for pod in cluster.pods if pod.alive)
            assert ready >= deployment.replicas, "the target does not serve any more"

    def _promote_and_go_back(self, version: str) -> None:
        self.cluster.glass(True)
        self.cluster.set_template(version)
        self.cluster.settle()
        self.cluster.set_template("v1")
        self.cluster.settle()
        self.cluster.glass(False)
        self.cluster.tick(2 * WINDOW_S)
        self.hurt = False

    # --- helpers -----------------------------------------------------------------------------------

    def _proceed(self, looks: int) -> None:
        for _ in range(looks):
            self.cluster.proceed(1)
            self._check()

    def _change(self, version: str) -> None:
        self.hurt = self.hurt or self.cluster.deployment.replicas == 0 or self._set_back_while_adopted()
        self.cluster.set_template(version)

    def _scale(self, replicas: int) -> None:
        """A paused Deployment that comes back from 0 takes its newest ReplicaSet, perhaps not the stable one's."""
        self.hurt = self.hurt or (replicas == 0 and self.cluster.deployment.paused)
        self.cluster.scale(replicas)
        self.floor = min(self.floor, replicas)

    def _one(self, who: str, index: int) -> None:
        if who == "deployment":
            self.cluster.sync_deployment()
        elif who == "sets":
            self.cluster.sync_sets()
        elif who == "kubelet":
            self.cluster.kubelet(index)
        else:
            self.cluster.acknowledge(index % len(self.cluster.sidecars))

    def _meanwhile(self, what: str, index: int) -> Callable[[], None]:
        def happens() -> None:
            if what == "template":
                self.raced = True
                self._change(VERSIONS[index % len(VERSIONS)])
            elif what == "scale":
                self._scale(index % 6)
            elif what in ("abort", "promote"):
                self._ask(what)
            elif what == "controllers":
                self._one(("deployment", "sets", "kubelet", "sidecar")[index % 4], index)
            else:
                self.hurt = True
                self.cluster.crash(index)

        return happens

    def _ask(self, verb: str, *, full: bool = False, twice: bool = False) -> None:
        run = self.cluster.status.run
        for _ in range(2 if twice else 1):
            self.tokens += 1
            place = {"run": run.id, "step": run.step} if run else {}
            request = ordered(verb, token=f"t{self.tokens:04}", full=full, **place)
            (key, value), *_ = request.items()
            assert key.startswith(ANNOTATION_COMMAND_PREFIX)
            self.cluster.command(key, value)


LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
TestRelease = pytest.mark.long(Release.TestCase)
TestRelease.settings = settings(
    max_examples=20_000 if LONG else 250,
    stateful_step_count=60 if LONG else 40,
    deadline=None,
    derandomize=not LONG,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)
