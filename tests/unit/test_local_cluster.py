"""The pure parts of the local cluster: what it derives from paths, files and the kernel's tables."""

import hashlib
import importlib
import json
import sys
import tarfile
from pathlib import Path

import pytest

LOCAL = Path(__file__).parents[2] / "deploy" / "local"


def load(name):
    sys.path.insert(0, str(LOCAL))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(LOCAL))


layout, cgroups, packages, releases, binaries = map(load, ("layout", "cgroups", "packages", "releases", "binaries"))
components, node, oci, images, progress = map(load, ("components", "node", "oci", "images", "progress"))
toolchain = load("toolchain")

V1 = """31 23 0:27 / /sys/fs/cgroup ro - tmpfs tmpfs ro
32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory
"""
HYBRID = V1 + "34 31 0:30 / /sys/fs/cgroup/unified rw shared:11 - cgroup2 cgroup2 rw\n"
V2 = "31 23 0:27 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "version", "roots", "others"),
    [
        pytest.param(V1, 1, ["cpu,cpuacct", "memory"], [], id="version 1 has a root for each controller"),
        pytest.param(HYBRID, 1, ["cpu,cpuacct", "memory"], ["unified"], id="a hybrid host counts as version 1"),
        pytest.param(V2, 2, [""], [], id="version 2 has one root"),
    ],
)
def test_the_cgroup_version_is_read_from_the_mounts(mountinfo, version, roots, others):
    found = cgroups.detect(mountinfo)

    base = Path("/sys/fs/cgroup")
    assert found == cgroups.Hierarchies(version, tuple(base / r for r in roots), tuple(base / o for o in others))


def test_a_machine_without_cgroups_is_refused_as_one_that_can_have_no_cluster():
    with pytest.raises(progress.Refusal) as refused:
        cgroups.detect("31 23 0:27 / /sys rw - sysfs sysfs rw\n")

    assert refused.value.exit_code == progress.NO_CLUSTER_HERE


def test_two_checkouts_have_different_cgroups_and_one_has_always_the_same():
    one, two = (layout.Layout(Path(p), Path("/cache")) for p in ("/a/.state", "/b/.state"))

    assert one.cgroup != two.cgroup
    assert one.cgroup == layout.Layout(Path("/a/.state"), Path("/elsewhere")).cgroup


@pytest.mark.parametrize(
    ("recorded", "taken", "chosen"),
    [
        pytest.param(None, set(), 16443, id="the first time it is the first port"),
        pytest.param(None, {16443, 16444}, 16445, id="taken ports are passed over"),
        pytest.param(16450, set(), 16450, id="the recorded port is kept"),
        pytest.param(16450, {16450}, 16443, id="a recorded port that somebody took is given up"),
        pytest.param(None, set(range(16443, 16493)), None, id="there is an end to trying"),
    ],
)
def test_the_port_is_chosen(recorded, taken, chosen):
    assert layout.choose_port(recorded, lambda port: port not in taken) == chosen


def test_a_hash_of_files_sees_names_contents_and_execute_bits_but_not_the_order(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("1")
    b.write_text("2")
    first = layout.digest_of_files(tmp_path, [a, b])

    assert layout.digest_of_files(tmp_path, [b, a]) == first
    a.chmod(0o755)
    executable = layout.digest_of_files(tmp_path, [a, b])
    a.write_text("2")
    assert len({first, executable, layout.digest_of_files(tmp_path, [a, b])}) == 3


def test_a_hash_of_parts_tells_where_one_part_ends():
    assert layout.digest([b"ab", b"c"]) != layout.digest([b"a", b"bc"])


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        pytest.param('ID=debian\nVERSION_ID="12"\n', True, id="Debian"),
        pytest.param('ID=linuxmint\nID_LIKE="ubuntu debian"\n', True, id="a child of Ubuntu"),
        pytest.param('ID="fedora"\n', False, id="Fedora"),
        pytest.param("", False, id="a system that does not say"),
    ],
)
def test_apt_is_used_where_packages_have_debians_names(release, expected):
    assert packages.is_debian_like(release) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a" * 64 + "\n", "a" * 64, id="a bare sum"),
        pytest.param(f"{'b' * 64}  other.tgz\n{'c' * 64}  etcd.tgz\n", "c" * 64, id="the line of the file"),
        pytest.param("<html>not found</html>", None, id="not a checksum file"),
    ],
)
def test_a_checksum_is_found(text, expected):
    assert releases.checksum_in(text, "etcd.tgz") == expected


@pytest.mark.parametrize(
    ("wrong", "taken"),
    [pytest.param(False, True, id="the published sum"), pytest.param(True, False, id="another sum")],
)
def test_a_release_is_used_only_with_its_checksum(tmp_path, wrong, taken):
    served = tmp_path / "kubelet"
    served.write_bytes(b"program")
    sums = tmp_path / "kubelet.sha256"
    sums.write_text("0" * 64 if wrong else hashlib.sha256(b"program").hexdigest())
    release = releases.Release("kubelet", served.as_uri(), sums.as_uri())
    target = tmp_path / "cache" / "kubelet"

    if taken:
        assert releases.fetch(release, target)
        assert target.read_bytes() == b"program"
    else:
        with pytest.raises(progress.Refusal, match="not used"):
            releases.fetch(release, target)
        assert not target.exists()


def test_a_site_that_does_not_answer_is_left_alone(tmp_path):
    nowhere = (tmp_path / "nothing").as_uri()

    assert not releases.fetch(releases.Release("kubelet", nowhere, nowhere), tmp_path / "kubelet")


def test_a_release_and_a_build_are_of_one_version():
    named = {release.binary: release.url for release in releases.releases("amd64")}

    assert set(named) == {*binaries.NODE_PROGRAMS, "coredns"}
    version = releases.module_version("node", "k8s.io/kubernetes")
    assert f"/{version}/" in named["kubelet"]
    assert f"gitVersion={version}" in binaries.link_flags("node")


def test_every_component_keeps_to_the_state_directory(tmp_path):
    where = layout.Layout(tmp_path / "state", tmp_path / "cache")
    tools = components.Tools({}, "/usr/bin/containerd", Path("/usr/lib/cni"), "overlayfs", "/usr/bin/python3")

    for component in components.components(where, tools, 7):
        directories = [a.split("=", 1)[1] for a in component.argv if "dir=" in a]
        assert all(Path(d).is_relative_to(where.state) for d in directories), component.name
    assert all(path.is_relative_to(where.state) for path in components.files(where, tools))


def test_only_the_forwarder_keeps_the_socket_of_the_host(tmp_path):
    where = layout.Layout(tmp_path / "state", tmp_path / "cache")
    tools = components.Tools({}, "/usr/bin/containerd", Path("/usr/lib/cni"), "overlayfs", "/usr/bin/python3")

    assert [c.name for c in components.components(where, tools, 7) if c.inherits] == ["forward"]


def test_a_directory_that_holds_the_state_is_not_hidden_from_the_node():
    assert Path("/var/lib") not in node.hideable([Path("/var/lib/ci/serinus/.state")])


@pytest.mark.parametrize(
    ("context", "command"),
    [
        pytest.param("kind-dev", ["kind", "load", "image-archive", "i.tar", "--name", "dev"], id="kind"),
        pytest.param("k3d-dev", ["k3d", "image", "import", "i.tar", "--cluster", "dev"], id="k3d"),
        pytest.param("production", None, id="neither"),
    ],
)
def test_images_go_into_kind_and_k3d_by_their_own_commands(context, command):
    assert images.loader(context, Path("i.tar")) == command


@pytest.fixture
def built(tmp_path):
    """An OCI layout with three images of one target and one of another, all on one layer."""
    directory = tmp_path / "oci"
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    listed = []
    for name in ("shop-1", "shop-2", "shop-3", "shop-v1-1"):
        manifest = {"config": {"digest": f"sha256:c{name}"}, "layers": [{"digest": "sha256:base"}]}
        (blobs / f"m{name}").write_text(json.dumps(manifest))
        (blobs / f"c{name}").write_text("{}")
        listed.append({"digest": f"sha256:m{name}", "size": 1, "annotations": {oci.REFERENCE: name}})
    (blobs / "base").write_text("layer")
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))
    return oci.Layout(directory)


def test_an_export_leaves_out_the_layers_that_the_cluster_has(built, tmp_path):
    built.export("shop-1", "localhost/serinus-shop:dev", tmp_path / "image.tar", without={"sha256:base"})

    with tarfile.open(tmp_path / "image.tar") as archive:
        names = archive.getnames()
        index = json.load(archive.extractfile("index.json"))
    assert names == ["oci-layout", "index.json", "blobs/sha256/mshop-1", "blobs/sha256/cshop-1"]
    assert index["manifests"][0]["annotations"][oci.CONTAINERD_NAME] == "localhost/serinus-shop:dev"


def test_the_newest_two_images_of_a_target_are_kept_and_other_targets_left_alone(built):
    built.forget_older("shop")

    assert [built.has(name) for name in ("shop-1", "shop-2", "shop-3", "shop-v1-1")] == [False, True, True, True]
    assert not (built.directory / "blobs" / "sha256" / "mshop-1").exists()
    assert (built.directory / "blobs" / "sha256" / "base").exists()


def test_an_image_that_came_out_as_an_older_one_is_kept_when_that_is_forgotten(built):
    index = json.loads((built.directory / "index.json").read_text())
    index["manifests"][2]["digest"] = index["manifests"][0]["digest"]
    (built.directory / "index.json").write_text(json.dumps(index))

    built.forget_older("shop")

    assert [built.has(name) for name in ("shop-1", "shop-2", "shop-3")] == [False, True, True]
    assert built.blobs("shop-3")
    assert (built.directory / "blobs" / "sha256" / "mshop-1").exists()


@pytest.mark.parametrize(
    ("done", "elapsed_s", "words"),
    [
        pytest.param(1, 60, "", id="nothing is said before a twentieth is done"),
        pytest.param(25, 100, ", about 5 min left", id="minutes"),
        pytest.param(50, 30, ", about 30 s left", id="seconds"),
    ],
)
def test_what_is_left_is_estimated(done, elapsed_s, words):
    assert progress.remaining(done, 100, elapsed_s) == words


def test_the_version_of_go_is_read_from_what_it_says():
    assert toolchain.version_of("go version go1.26.8 linux/amd64") == (1, 26)
    assert toolchain.version_of("no such command") == (0, 0)
