import base64
import copy
import json
import subprocess

import pytest

from serinus.mesh.admission import review
from serinus.mesh.inject import InjectionSettings, inject, why_not
from serinus.mesh.model import Protocol
from serinus.mesh.ports import http_ports, protocol

CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
SETTINGS = InjectionSettings("proxy:1", "serinus-ads.serinus-system.svc:15010", CA)
HTTP_PORTS = {8080: Protocol.HTTP}


def pod(*containers, labels=None, annotations=None, **spec):
    metadata = {"name": "a", "labels": labels or {}}
    if annotations is not None:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": {"containers": list(containers) or [container()], **spec}}


def container(name="app", **fields):
    return {"name": name, "image": "app:1", **fields}


def patched(subject, patch):
    """Return what the API server makes of the patch: RFC 6902, as far as ``add`` and ``replace`` go."""
    result = copy.deepcopy(subject)
    for step in patch:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        place = result
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list) and step["op"] == "add":
            place.insert(len(place) if last == "-" else int(last), step["value"])
        else:
            key = int(last) if isinstance(place, list) else last
            assert step["op"] == "add" or key in place
            place[key] = step["value"]
    return result


def injected(subject, ports=HTTP_PORTS, settings=SETTINGS):
    return patched(subject, inject(subject, settings, ports))


def proxy_of(subject):
    return next(each for each in subject["spec"]["initContainers"] if each["name"] == "serinus-proxy")


def bootstrap_of(subject):
    args = proxy_of(subject)["args"]
    return json.loads(args[args.index("--config-yaml") + 1])


def test_the_sidecar_starts_before_anything_of_the_users():
    result = injected(pod(initContainers=[container("migrate")]))
    assert [each["name"] for each in result["spec"]["initContainers"]] == ["serinus-init", "serinus-proxy", "migrate"]
    assert proxy_of(result)["restartPolicy"] == "Always"
    assert [each["name"] for each in result["spec"]["containers"]] == ["app"]


def test_a_pod_without_init_containers_volumes_or_annotations_gets_them():
    result = injected(pod())
    assert [each["name"] for each in result["spec"]["volumes"]] == ["serinus-state", "serinus-token"]
    assert "serinus.dev/injected" in result["metadata"]["annotations"]


def test_what_a_pod_has_stays():
    result = injected(pod(annotations={"a/b": "c"}, volumes=[{"name": "data", "emptyDir": {}}]))
    assert result["metadata"]["annotations"]["a/b"] == "c"
    assert [each["name"] for each in result["spec"]["volumes"]] == ["data", "serinus-state", "serinus-token"]


@pytest.mark.parametrize(
    ("subject", "why"),
    [
        pytest.param(pod(labels={"serinus.dev/inject": "disabled"}), "label", id="a pod that opted out"),
        pytest.param(pod(hostNetwork=True), "host's network", id="a pod on the host's network"),
        pytest.param(pod(os={"name": "windows"}), "Windows", id="a pod for Windows"),
        pytest.param(injected(pod()), "already", id="a pod that has a sidecar: once is enough"),
    ],
)
def test_who_gets_no_sidecar(subject, why):
    assert inject(subject, SETTINGS, HTTP_PORTS) == []
    assert why in why_not(subject)


def test_only_the_init_container_has_privileges_and_those_are_two():
    result = injected(pod())
    init, proxy = result["spec"]["initContainers"]
    assert init["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    context = proxy["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert (context["runAsUser"], context["runAsNonRoot"], context["readOnlyRootFilesystem"]) == (1337, True, True)


def test_the_sidecar_has_a_startup_probe_and_no_other_because_its_readiness_would_be_the_pods():
    proxy = proxy_of(injected(pod()))
    assert proxy["startupProbe"]["httpGet"] == {"path": "/ready", "port": 15021}
    assert "readinessProbe" not in proxy
    assert "livenessProbe" not in proxy


def test_the_sidecar_says_who_it_is_with_names_that_the_kubelet_fills_in():
    proxy = proxy_of(injected(pod()))
    assert proxy["args"][:2] == ["--service-node", "$(POD_NAMESPACE)/$(POD_NAME)"]
    assert {each["name"] for each in proxy["env"]} == {"POD_NAMESPACE", "POD_NAME", "POD_IP"}


def test_the_token_is_for_our_audience_and_readable_by_the_sidecars_user():
    volume = injected(pod())["spec"]["volumes"][-1]["projected"]
    assert volume["sources"][0]["serviceAccountToken"]["audience"] == "serinus-mesh"
    assert "defaultMode" not in volume


def test_settings_reach_the_sidecar():
    settings = InjectionSettings("proxy:2", "10.0.0.1:15010", CA, concurrency=2, memory_limit="1Gi", log_level="info")
    result = injected(pod(), settings=settings)
    proxy = proxy_of(result)
    assert (proxy["image"], proxy["resources"]["limits"]) == ("proxy:2", {"memory": "1Gi"})
    assert proxy["args"][proxy["args"].index("--concurrency") + 1] == "2"
    clusters = {each["name"]: each for each in bootstrap_of(result)["static_resources"]["clusters"]}
    endpoint = clusters["xds"]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    assert endpoint["address"]["socket_address"] == {"address": "10.0.0.1", "port_value": 15010}


def test_other_settings_are_another_version_of_the_injection():
    annotation = "serinus.dev/injected"
    other = InjectionSettings("proxy:2", SETTINGS.xds_address, CA)
    versions = {injected(pod(), settings=each)["metadata"]["annotations"][annotation] for each in (SETTINGS, other)}
    assert len(versions) == 2


def inbound_chains(result):
    listeners = {each["name"]: each for each in bootstrap_of(result)["static_resources"]["listeners"]}
    return [each["filter_chain_match"]["destination_port"] for each in listeners["inbound"]["filter_chains"]]


def test_replies_are_marked_on_http_ports_and_all_else_passes_through():
    assert inbound_chains(injected(pod(), {9090: Protocol.GRPC, 8080: Protocol.HTTP})) == [8080, 9090, 15006]
    assert inbound_chains(injected(pod(), {})) == [15006]


SLEEP = {"preStop": {"sleep": {"seconds": 5}}}


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        pytest.param(pod(), [SLEEP], id="no life cycle: a sleep of 5 s"),
        pytest.param(
            pod(container(lifecycle={"postStart": {"exec": {}}})),
            [{"postStart": {"exec": {}}, **SLEEP}],
            id="only a postStart: the sleep is added",
        ),
        pytest.param(
            pod(container(lifecycle={"preStop": {"exec": {}}}), container("b")),
            [{"preStop": {"exec": {}}}, SLEEP],
            id="a preStop of the user's own stays, the other container gets one",
        ),
        pytest.param(
            pod(terminationGracePeriodSeconds=6), [SLEEP], id="a grace period of 6 s has just room for the whole sleep"
        ),
        pytest.param(
            pod(terminationGracePeriodSeconds=3),
            [{"preStop": {"sleep": {"seconds": 2}}}],
            id="a shorter one leaves the app one second",
        ),
        pytest.param(pod(terminationGracePeriodSeconds=1), [None], id="1 s: no sleep"),
        pytest.param(pod(terminationGracePeriodSeconds=0), [None], id="none at all: no sleep"),
    ],
)
def test_apps_serve_on_while_callers_learn_that_they_go(subject, expected):
    assert [each.get("lifecycle") for each in injected(subject)["spec"]["containers"]] == expected


def test_a_tcp_probe_is_asked_of_the_sidecar_because_behind_capture_every_port_accepts():
    probe = {"tcpSocket": {"port": "db"}, "periodSeconds": 4, "failureThreshold": 7}
    ports = [{"name": "db", "containerPort": 6379}]
    result = injected(pod(container("a"), container("b", ports=ports, readinessProbe=probe)))
    assert result["spec"]["containers"][1]["readinessProbe"] == {
        "httpGet": {"path": "/probe/b/readiness", "port": 15021, "scheme": "HTTP"},
        "periodSeconds": 4,
        "failureThreshold": 7,
    }
    (check,) = (each for each in bootstrap_of(result)["static_resources"]["clusters"] if each.get("health_checks"))
    assert check["name"] == "probe-6379"
    assert check["health_checks"][0]["no_traffic_healthy_interval"] == "2s"
    assert check["upstream_bind_config"]["source_address"]["address"] == "127.0.0.6"


def test_the_probes_of_a_sidecar_of_the_users_own_are_found_behind_ours():
    own = container("own", restartPolicy="Always", startupProbe={"tcpSocket": {"port": 7000}})
    result = injected(pod(initContainers=[container("first"), own]))
    assert result["spec"]["initContainers"][3]["startupProbe"]["httpGet"]["path"] == "/probe/own/startup"


@pytest.mark.parametrize(
    "probe",
    [
        pytest.param({"httpGet": {"path": "/", "port": 8080}}, id="HTTP reaches the app through the capture"),
        pytest.param({"grpc": {"port": 9090}}, id="gRPC does too"),
        pytest.param({"exec": {"command": ["true"]}}, id="a command is not concerned"),
        pytest.param({"tcpSocket": {"port": 80, "host": "10.0.0.1"}}, id="another host is not ours"),
        pytest.param({"tcpSocket": {"port": "nobody"}}, id="a name that no port has is left for Kubernetes to refuse"),
    ],
)
def test_probes_that_stay_as_they_are(probe):
    subject = pod(container(livenessProbe=probe))
    assert injected(subject)["spec"]["containers"][0]["livenessProbe"] == probe


def test_the_init_containers_script_is_one_that_a_shell_reads():
    (init, _) = injected(pod())["spec"]["initContainers"]
    shell, flag, script = init["command"]
    assert (shell, flag) == ("sh", "-c")
    subprocess.run(["sh", "-n", "-c", script], check=True)
    assert "$(" not in script


def test_nothing_in_the_arguments_is_expanded_but_what_is_meant_to_be():
    text = " ".join(proxy_of(injected(pod(container(readinessProbe={"tcpSocket": {"port": 1}}))))["args"])
    assert {part.partition(")")[0] for part in text.split("$(")[1:]} == {"POD_NAMESPACE", "POD_NAME", "POD_IP"}


@pytest.mark.parametrize(
    ("name", "app_protocol", "expected"),
    [
        pytest.param("http", None, Protocol.HTTP, id="by its name"),
        pytest.param("http-web", None, Protocol.HTTP, id="up to the dash"),
        pytest.param("http2", None, Protocol.HTTP2, id="http2"),
        pytest.param("h2c-x", None, Protocol.HTTP2, id="h2c"),
        pytest.param("GRPC-api", None, Protocol.GRPC, id="in any case"),
        pytest.param("grpc-web", None, Protocol.HTTP, id="gRPC-Web is HTTP/1.1"),
        pytest.param("httpx", None, None, id="only the whole word"),
        pytest.param("https", None, None, id="TLS passes through"),
        pytest.param(None, None, None, id="nothing said: TCP"),
        pytest.param("http", "tcp", None, id="appProtocol counts first"),
        pytest.param("web", "kubernetes.io/h2c", Protocol.HTTP2, id="Kubernetes' own word for it"),
        pytest.param("web", "kubernetes.io/ws", Protocol.HTTP, id="web sockets start as HTTP"),
        pytest.param(None, "grpc", Protocol.GRPC, id="appProtocol without a name"),
    ],
)
def test_how_a_port_is_spoken_to(name, app_protocol, expected):
    assert protocol(name, app_protocol) is expected


def kube_service(selector, **port):
    return {"metadata": {"name": "s"}, "spec": {"selector": selector, "ports": [{"port": 80, **port}]}}


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        pytest.param([], {8080: Protocol.HTTP}, id="by the names of the pod's own ports"),
        pytest.param(
            [kube_service({"app": "a"}, name="grpc", targetPort=9090)],
            {8080: Protocol.HTTP, 9090: Protocol.GRPC},
            id="a Service that selects it adds its target port",
        ),
        pytest.param(
            [kube_service({"app": "a"}, name="http", targetPort="raw")],
            {8080: Protocol.HTTP, 7000: Protocol.HTTP},
            id="a target port by name",
        ),
        pytest.param(
            [kube_service({"app": "a"}, appProtocol="grpc", targetPort="http")],
            {8080: Protocol.GRPC},
            id="the Service knows better than the container",
        ),
        pytest.param(
            [kube_service({"app": "a"}, name="http")], {8080: Protocol.HTTP, 80: Protocol.HTTP}, id="same port"
        ),
        pytest.param([kube_service({"app": "b"}, name="http")], {8080: Protocol.HTTP}, id="a Service of other pods"),
        pytest.param([kube_service({}, name="http")], {8080: Protocol.HTTP}, id="a Service without a selector"),
        pytest.param(
            [kube_service({"app": "a"}, name="http", targetPort="nobody")], {8080: Protocol.HTTP}, id="an unknown name"
        ),
        pytest.param(
            [kube_service({"app": "a"}, name="http", targetPort=53, protocol="UDP")], {8080: Protocol.HTTP}, id="UDP"
        ),
    ],
)
def test_which_ports_of_a_pod_speak_http(services, expected):
    ports = [
        {"name": "http", "containerPort": 8080},
        {"name": "raw", "containerPort": 7000},
        {"name": "http-udp", "containerPort": 5353, "protocol": "UDP"},
    ]
    assert http_ports(pod(container(ports=ports), labels={"app": "a"}), services) == expected


def admission(**fields):
    request = {
        "uid": "u-1",
        "operation": "CREATE",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "namespace": "shop",
        "object": pod(),
        **fields,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def test_a_pod_that_is_created_is_answered_with_its_patch():
    seen = []

    def note(subject):
        seen.append(subject)
        return [{"op": "add", "path": "/x", "value": 1}]

    answer = review(admission(), note)
    response = answer["response"]
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert (response["uid"], response["allowed"], response["patchType"]) == ("u-1", True, "JSONPatch")
    assert json.loads(base64.b64decode(response["patch"])) == [{"op": "add", "path": "/x", "value": 1}]
    assert seen[0]["metadata"]["namespace"] == "shop"


def test_a_pod_that_gets_no_sidecar_is_allowed_as_it_is():
    assert review(admission(), lambda _: [])["response"] == {"uid": "u-1", "allowed": True}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"operation": "UPDATE"}, id="an update"),
        pytest.param({"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}}, id="another kind"),
        pytest.param({"subResource": "eviction"}, id="a part of a pod"),
        pytest.param({"operation": "DELETE", "object": None}, id="a deletion"),
    ],
)
def test_all_else_is_allowed_without_a_look(fields):
    def refuse(_):
        raise AssertionError

    assert review(admission(**fields), refuse)["response"] == {"uid": "u-1", "allowed": True}


def test_a_pod_that_cannot_be_given_a_sidecar_is_refused_with_the_reason():
    def fail(_):
        raise ValueError("the bootstrap is wrong")

    response = review(admission(), fail)["response"]
    assert response["allowed"] is False
    assert response["status"]["message"] == "Serinus cannot give this pod a sidecar: the bootstrap is wrong"
    assert "patch" not in response


@pytest.mark.parametrize("body", [{}, {"kind": "AdmissionReview"}, {"kind": "Pod", "request": {"uid": "u"}}])
def test_what_is_no_admission_review_is_told_so(body):
    with pytest.raises(ValueError, match="not an AdmissionReview"):
        review(body, lambda _: [])
