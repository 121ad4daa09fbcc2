"""Rule sets as other programs make them, with real packets: what stops services is found, what lets them pass is not.

Written after what Docker 28, firewalld 1.3 and ufw 0.36 make on a host, shortened to what forwarded packets meet.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from svcnat.api import Cluster, load
from tests.agent.test_doctor_recipes import (
    BLOCKS,
    EXTERNAL,
    NAMED,
    Machine,
    cluster,
    findings,
    machine,
    reached,
    run,
)

__all__ = ["cluster", "machine"]  # fixtures
pytestmark = pytest.mark.packets

DOCKER = """
{tool} -N DOCKER; {tool} -N DOCKER-BRIDGE; {tool} -N DOCKER-CT; {tool} -N DOCKER-FORWARD; {tool} -N DOCKER-USER
{tool} -A FORWARD -j DOCKER-USER
{tool} -A FORWARD -j DOCKER-FORWARD
{tool} -A DOCKER ! -i {bridge} -o {bridge} -j DROP
{tool} -A DOCKER-BRIDGE -o {bridge} -j DOCKER
{tool} -A DOCKER-CT -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{tool} -A DOCKER-FORWARD -j DOCKER-CT
{tool} -A DOCKER-FORWARD -j DOCKER-BRIDGE
{tool} -A DOCKER-FORWARD -i {bridge} -j ACCEPT
{tool} -t raw -A PREROUTING -d 172.17.0.2/32 ! -i {bridge} -j DROP
{tool} -t nat -N DOCKER
{tool} -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
{tool} -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
{tool} -t nat -A DOCKER ! -i {bridge} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
"""
UFW = """
iptables-nft -P FORWARD DROP; iptables-nft -P INPUT DROP
for each in before after user reject; do iptables-nft -N ufw-$each-forward; done
for each in before after reject; do iptables-nft -A FORWARD -j ufw-$each-forward; done
{allow}
iptables-nft -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables-nft -A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
iptables-nft -A ufw-before-forward -j ufw-user-forward
iptables-nft -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables-nft -A INPUT -i lo -j ACCEPT
"""
ZONES = "{ type filter hook %s priority filter + 10; policy accept; }"
FIREWALLD = f"""
nft add table inet firewalld
nft add chain inet firewalld filter_FORWARD '{ZONES % "forward"}'
nft add chain inet firewalld filter_INPUT '{ZONES % "input"}'
nft add chain inet firewalld zones; nft add chain inet firewalld public; nft add chain inet firewalld trusted
nft add rule inet firewalld filter_FORWARD ct state {{established, related}} accept
{{allow}}
nft add rule inet firewalld filter_FORWARD iifname lo accept
nft add rule inet firewalld filter_FORWARD ct state invalid drop
nft add rule inet firewalld filter_FORWARD jump zones
nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited
nft add rule inet firewalld filter_INPUT ct state {{established, related}} accept
nft add rule inet firewalld filter_INPUT iifname lo accept
nft add rule inet firewalld filter_INPUT reject with icmpx admin-prohibited
nft add rule inet firewalld zones iifname podman0 goto trusted
nft add rule inet firewalld zones goto public
nft add rule inet firewalld trusted accept
nft add rule inet firewalld public meta l4proto {{icmp, ipv6-icmp}} accept
nft add rule inet firewalld public reject with icmpx admin-prohibited
""".replace("{{", "{").replace("}}", "}")


def firewalld(allow: str) -> str:
    return FIREWALLD.replace("{allow}", allow)


def table(hook: str, *rules: str, priority: int = 0, policy: str = "drop") -> str:
    """A table of nft with one chain."""
    chain = f"add chain inet mine c {{ type filter hook {hook} priority {priority}; policy {policy}; }}"
    return "\n".join(
        f"nft '{each}'"
        for each in ("add table inet mine", chain, *(each.replace("RULE", "add rule inet mine c") for each in rules))
    )


STATES = "RULE ct state vmap { established : accept, related : accept, invalid : drop }"

ILL = {
    "Docker 28": ("outside", DOCKER.format(tool="iptables-nft", bridge="podman0")),
    "Docker 28 on iptables-legacy": ("outside", DOCKER.format(tool="iptables-legacy", bridge="podman0")),
    "a map of devices": ("outside", table("forward", STATES, 'RULE iifname vmap { "lo" : accept, "wg0" : accept }')),
    "other ports": ("outside", table("forward", STATES, "RULE tcp dport { 22, 80, 443, 9000-9100 } accept")),
    "answers": ("outside", table("forward", "RULE tcp dport 8080 accept")),
    "a drop behind translation": ("outside", table("postrouting", "RULE oifname podman0 drop", policy="accept")),
    "a drop in mangle": ("outside", "iptables-nft -t mangle -A FORWARD -o podman0 -j DROP"),
    "a drop in mangle of iptables-legacy": ("outside", "iptables-legacy -t mangle -A FORWARD -o podman0 -j DROP"),
    "a host that sends to few": ("host", table("output", STATES, "RULE oifname lo accept", "RULE udp dport 53 accept")),
    "notrack": ("outside", "iptables-nft -t raw -A PREROUTING -p tcp -m tcp --dport 80 -j NOTRACK"),
    "notrack of iptables-legacy": ("outside", "iptables-legacy -t raw -A PREROUTING -p tcp -j CT --notrack"),
    "notrack of answers": (
        "outside",
        table("prerouting", "RULE iifname podman0 ip saddr 10.88.0.0/16 notrack", priority=-300, policy="accept"),
    ),
    "notrack of the host's own": ("host", table("output", "RULE tcp dport 80 notrack", priority=-300, policy="accept")),
}

HEALTHY = {
    "Docker 28, with its own bridge": DOCKER.format(tool="iptables-nft", bridge="docker0"),
    "Docker 28 on iptables-legacy, with its own bridge": DOCKER.format(tool="iptables-legacy", bridge="docker0"),
    "Docker 28, and its users' rule": DOCKER.format(tool="iptables-nft", bridge="podman0")
    + "iptables-nft -I DOCKER-USER -d 10.88.0.0/16 -p tcp -m multiport --dports 80,8000:8100 -j ACCEPT",
    "ufw that lets translated packets pass": UFW.format(
        allow="iptables-nft -A ufw-before-forward -m conntrack --ctstate DNAT -j ACCEPT"
    ),
    "ufw with routes": UFW.format(
        allow="iptables-nft -A ufw-user-forward -i eth0 -o podman0 -j ACCEPT\n"
        "iptables-nft -A ufw-user-forward -i podman0 -d 10.88.0.0/16 -p tcp -m tcp --dport 8080 -j ACCEPT"
    ),
    "firewalld": firewalld("nft add rule inet firewalld filter_FORWARD ct status dnat accept"),
    "firewalld with the endpoints' policy": firewalld(
        "nft add rule inet firewalld zones oifname podman0 tcp dport 8080 accept"
    ),
    "devices that may": table(
        "forward", STATES, 'RULE iifname . oifname { "eth0" . "podman0", "podman0" . "podman0" } accept'
    ),
    "ports that may": table("forward", STATES, "RULE ip daddr 10.88.0.0/24 tcp dport { 22, 8000-8100 } accept"),
    "a list of bad hosts": table(
        "forward",
        "add set inet mine bad { type ipv4_addr; elements = { 203.0.113.6 }; }",
        "RULE ip saddr @bad drop",
        "RULE limit rate over 1000/second drop",
        "RULE meta mark 7 reject",
        policy="accept",
    ),
    "a host that takes nothing": table("input", "RULE ct state established accept", "RULE tcp dport 22 accept"),
    "a host that checks the way back": table(
        "prerouting", "RULE fib saddr . mark . iif oif missing drop", priority=-300, policy="accept"
    ),
    "notrack of names and of others": table(
        "prerouting", "RULE udp dport 53 notrack", "RULE ip daddr 203.0.113.9 notrack", priority=-300, policy="accept"
    ),
}


@pytest.fixture
def host(machine: Machine, cluster: Cluster) -> str:
    """The host's namespace, with the service, without anybody else's rules."""
    cluster.apply(load(text=BLOCKS[0]))
    cluster.apply(load(text=NAMED))
    name = machine.netns("host")
    tables = "for t in iptables-legacy; do for n in raw mangle nat filter; do $t -t $n -F; $t -t $n -X; done; done"
    run(name, tables)
    return name


def run_or_skip(name: str, script: str) -> None:
    try:
        run(name, script)
    except subprocess.CalledProcessError:
        if "legacy" in script:
            pytest.skip("this kernel has no iptables-legacy")
        raise


@pytest.mark.parametrize(("source", "script"), ILL.values(), ids=ILL)
def test_what_stops_services_is_found_and_mended(
    machine: Machine, cluster: Cluster, host: str, tmp_path: Path, source: str, script: str
) -> None:
    """Nobody is reached; one finding names the chain; its command, as it stands, lets all pass and ends the finding."""
    run_or_skip(host, script)
    try:
        assert reached(machine, source, EXTERNAL, times=1) == {""}
        (finding,) = findings(machine, tmp_path)
        assert finding.severity in ("error", "warning")
        subprocess.run(["sh", "-ec", finding.fix], check=True)
        assert "" not in reached(machine, source, EXTERNAL, times=3)
        assert findings(machine, tmp_path) == []
    finally:
        run(host, "iptables-legacy -t raw -F; iptables-legacy -t mangle -F; iptables-legacy -F")


@pytest.mark.parametrize("script", HEALTHY.values(), ids=HEALTHY)
def test_what_lets_services_pass_is_not_called_hostile(
    machine: Machine, cluster: Cluster, host: str, tmp_path: Path, script: str
) -> None:
    """Not even a warning: outsiders, the host and other containers are served."""
    run_or_skip(host, script)
    for source in ("outside", "host", "asking"):
        assert "" not in reached(machine, source, EXTERNAL, times=3), source
    assert findings(machine, tmp_path) == []
