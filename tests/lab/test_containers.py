"""What a container runs and sees, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from svcnat.lab import containers
from svcnat.lab.addressing import Addresses
from svcnat.lab.containers import Missing, Place, command_of, environment_of, hosts_file, resolv_conf, service_variables
from svcnat.model.objects import (
    Container,
    EnvVar,
    HostAlias,
    ObjectMeta,
    Pod,
    PodDNSConfig,
    PodDNSConfigOption,
    PodSpec,
    Service,
    ServicePort,
    ServiceSpec,
)

PLACE = Place("node-1", Addresses("172.30.0.11", "fd00:172:30::b"), Addresses("10.244.0.2", "fd00:10:244::2"))
PATH = "/usr/bin:/bin"
DATA = {("ConfigMap", "default", "settings"): {"COLOR": "blue"}, ("Secret", "default", "keys"): {"token": "s3cret"}}


def data(kind: str, namespace: str, name: str) -> Mapping[str, str] | None:
    return DATA.get((kind, namespace, name))


def a_pod(**spec: Any) -> Pod:
    meta = ObjectMeta(name="web-0", namespace="default", uid="u-1", labels={"app": "web"})
    return Pod(metadata=meta, spec=PodSpec(**spec))


def environment(container: Container, pod: Pod | None = None, services: tuple[Service, ...] = ()) -> dict[str, str]:
    return environment_of(pod or a_pod(), container, services, PLACE, data)


@pytest.mark.parametrize(
    ("image", "listed"),
    [
        ("redis", "redis"),
        ("redis:7", "redis"),
        ("redis:7", "redis:7"),
        ("docker.io/library/redis:7@sha256:abc", "redis"),
        ("localhost:5000/redis", "redis"),
        ("localhost:5000/redis:7", "localhost:5000/redis"),
    ],
)
def test_images_are_found_in_the_table(image: str, listed: str) -> None:
    """With or without tag, digest and registry; a port of a registry is no tag."""
    table = {listed: ("run-it",), "other": ("no",)}
    assert command_of(Container(image=image, command=["true"]), table, PATH) == ("run-it",)


def test_the_most_exact_name_of_an_image_counts() -> None:
    """An entry with the tag comes before one without."""
    table = {"redis": ("any",), "redis:7": ("seven",)}
    assert command_of(Container(image="redis:7"), table, PATH) == ("seven",)
    assert command_of(Container(image="redis:6"), table, PATH) == ("any",)


def test_commands_and_arguments() -> None:
    """The table's, else the manifest's if there is such a program here, else the stand-in."""
    table = {"listed": ("run-it", "-x"), "stand-in": ()}
    assert command_of(Container(image="listed", args=["a"]), table, PATH) == ("run-it", "-x", "a")
    assert command_of(Container(image="listed", command=["c"], args=["a"]), table, PATH) == ("run-it", "-x")
    assert command_of(Container(image="x", command=["sh", "-c"], args=["a"]), table, PATH) == ("sh", "-c", "a")
    assert command_of(Container(image="x", command=["/no/such/program"]), table, PATH) == containers.STAND_IN
    assert command_of(Container(image="x", args=["a"]), table, PATH) == containers.STAND_IN
    assert command_of(Container(image="stand-in", command=["sh"], args=["a"]), table, PATH) == containers.STAND_IN


def service(name: str, *ports: ServicePort, ip: str = "10.96.0.9") -> Service:
    return Service(metadata=ObjectMeta(name=name, namespace="default"), spec=ServiceSpec(cluster_ip=ip, ports=[*ports]))


def test_variables_of_services() -> None:
    """Those of Kubernetes: HOST, PORT, PORT_name, and the links; none of a headless Service."""
    web = service("my-web", ServicePort(name="http-main", port=80), ServicePort(name="dns", port=53, protocol="UDP"))
    assert service_variables([web, service("headless", ServicePort(port=1), ip="None"), service("none")]) == {
        "MY_WEB_SERVICE_HOST": "10.96.0.9",
        "MY_WEB_SERVICE_PORT": "80",
        "MY_WEB_SERVICE_PORT_HTTP_MAIN": "80",
        "MY_WEB_SERVICE_PORT_DNS": "53",
        "MY_WEB_PORT": "tcp://10.96.0.9:80",
        "MY_WEB_PORT_80_TCP": "tcp://10.96.0.9:80",
        "MY_WEB_PORT_80_TCP_PROTO": "tcp",
        "MY_WEB_PORT_80_TCP_PORT": "80",
        "MY_WEB_PORT_80_TCP_ADDR": "10.96.0.9",
        "MY_WEB_PORT_53_UDP": "udp://10.96.0.9:53",
        "MY_WEB_PORT_53_UDP_PROTO": "udp",
        "MY_WEB_PORT_53_UDP_PORT": "53",
        "MY_WEB_PORT_53_UDP_ADDR": "10.96.0.9",
    }
    assert service_variables([service("six", ServicePort(port=1), ip="fd00::9")])["SIX_PORT"] == "tcp://[fd00::9]:1"
    assert environment(Container(), services=(web,))["MY_WEB_SERVICE_PORT"] == "80"
    assert environment(Container(), a_pod(enable_service_links=False), (web,)) == {"HOSTNAME": "web-0"}


def test_values_refer_to_variables_before_them() -> None:
    """``$(NAME)`` is expanded, ``$$(NAME)`` is not, an unknown one stays."""
    env = [EnvVar(name="A", value="1"), EnvVar(name="B", value="$(A)-$$(A)-$(C)"), EnvVar(name="EMPTY")]
    found = environment(Container(env=env))
    assert (found["B"], found["EMPTY"]) == ("1-$(A)-$(C)", "")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web-0"),
        ("metadata.namespace", "default"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['none']", ""),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "default"),
        ("status.hostIP", "172.30.0.11"),
        ("status.podIP", "10.244.0.2"),
        ("status.podIPs", "10.244.0.2,fd00:10:244::2"),
    ],
)
def test_the_downward_api(path: str, value: str) -> None:
    """Fields of the pod as variables."""
    env = [EnvVar(name="A", value_from={"fieldRef": {"fieldPath": path}})]
    assert environment(Container(env=env))["A"] == value


def test_config_maps_and_secrets() -> None:
    """One key, or all of them with a prefix; what is missing is an error unless it is optional."""
    env = [
        EnvVar(name="A", value_from={"configMapKeyRef": {"name": "settings", "key": "COLOR"}}),
        EnvVar(name="B", value_from={"secretKeyRef": {"name": "keys", "key": "token"}}),
        EnvVar(name="C", value_from={"secretKeyRef": {"name": "keys", "key": "none", "optional": True}}),
        EnvVar(name="D", value_from={"configMapKeyRef": {"name": "none", "key": "none", "optional": True}}),
        EnvVar(name="E", value_from={"resourceFieldRef": {"resource": "limits.cpu"}}),
    ]
    sources = [{"prefix": "MY_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "no", "optional": True}}]
    assert environment(Container(env=env, env_from=sources)) == {
        "HOSTNAME": "web-0",
        "MY_COLOR": "blue",
        "A": "blue",
        "B": "s3cret",
    }
    for reference, message in (
        ({"configMapKeyRef": {"name": "none", "key": "x"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "keys", "key": "x"}}, "couldn't find key x in Secret default/keys"),
    ):
        with pytest.raises(Missing, match=message):
            environment(Container(env=[EnvVar(name="A", value_from=reference)]))


def test_what_no_process_can_have_is_left_out() -> None:
    """A name with ``=`` or a value with NUL would keep the container from starting."""
    found = environment(Container(env=[EnvVar(name="A=B", value="1"), EnvVar(name="C", value="a\0b")]))
    assert found == {"HOSTNAME": "web-0", "C": "ab"}


def test_the_hosts_file() -> None:
    """The pod's own names at both addresses, with its subdomain if it has one, and its aliases."""
    text = hosts_file(a_pod(), PLACE.addresses)
    assert "127.0.0.1\tlocalhost\n" in text
    assert text.endswith("\n10.244.0.2\tweb-0\nfd00:10:244::2\tweb-0\n")
    named = a_pod(hostname="one", subdomain="db", host_aliases=[HostAlias(ip="192.0.2.1", hostnames=["a", "b"])])
    text = hosts_file(named, PLACE.addresses)
    assert "\n10.244.0.2\tone.db.default.svc.cluster.local\tone\n" in text
    assert text.endswith("\n# Entries added by HostAliases.\n192.0.2.1\ta\tb\n")


def test_the_resolver_file() -> None:
    """ClusterFirst where there is a cluster DNS; the machine's own, None, without one, with Default and on the host."""
    cluster = (
        "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
    )
    assert resolv_conf(a_pod(), ["10.96.0.10"]) == cluster
    assert resolv_conf(a_pod(), []) is None
    assert resolv_conf(a_pod(dns_policy="Default"), ["10.96.0.10"]) is None
    assert resolv_conf(a_pod(host_network=True), ["10.96.0.10"]) is None
    assert resolv_conf(a_pod(host_network=True, dns_policy="ClusterFirstWithHostNet"), ["10.96.0.10"]) == cluster
    options = [PodDNSConfigOption(name="ndots", value="2"), PodDNSConfigOption(name="edns0")]
    config = PodDNSConfig(nameservers=["192.0.2.53"], searches=["example.org"], options=options)
    own = a_pod(dns_policy="None", dns_config=config)
    assert resolv_conf(own, ["10.96.0.10"]) == "nameserver 192.0.2.53\nsearch example.org\noptions ndots:2 edns0\n"
    both = replace(own, spec=replace(own.spec, dns_policy=None))
    assert "svc.cluster.local cluster.local example.org\noptions ndots:2 edns0\n" in (
        resolv_conf(both, ["10.96.0.10"]) or ""
    )
