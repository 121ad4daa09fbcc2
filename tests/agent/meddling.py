"""Every kind of thing that a stranger can do to svcnat's tables: as scripts for nft, and as bytes for the kernel.

`SCRIPTS` are filled with :func:`words`; what nft has no words for is in :func:`messages`. Both are about the objects
that `OBJECTS` makes. Nothing here waits or judges.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence

from svcnat.kernel import netns
from svcnat.kernel.netlink import Request, attribute, nest, text
from svcnat.kernel.nfnetlink import NFGENMSG, NFPROTO, Connection

OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd00:10:96::a"]
  ipFamilyPolicy: RequireDualStack
  type: NodePort
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}, {name: dns, protocol: UDP, port: 53}]
---
apiVersion: v1
kind: Service
metadata: {name: sticky, annotations: {svcnat.io/max-connections: "5", svcnat.io/connection-rate: 5/minute}}
spec:
  clusterIP: 10.96.0.11
  clusterIPs: [10.96.0.11, "fd00:10:96::b"]
  ipFamilyPolicy: RequireDualStack
  sessionAffinity: ClientIP
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec:
  clusterIP: 10.96.0.12
  clusterIPs: [10.96.0.12, "fd00:10:96::c"]
  ipFamilyPolicy: RequireDualStack
  type: LoadBalancer
  loadBalancerSourceRanges: [192.0.2.0/24, "2001:db8::/64"]
  ports: [{name: http, port: 80, targetPort: 8080}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}, {ip: "2001:db8:1b::1"}]}}
""" + "".join(
    f"""---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{kind.lower()}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: {kind}
ports: [{{name: http, port: 8080}}, {{name: dns, protocol: UDP, port: 53}}]
endpoints: [{{addresses: ["{prefix}7"]}}, {{addresses: ["{prefix}8"]}}]
"""
    for name in ("web", "sticky", "balanced")
    for kind, prefix in (("IPv4", "192.0.2."), ("IPv6", "2001:db8:7::"))
)

SCRIPTS = {
    "add rule": "add rule {f} svcnat services counter accept",
    "add rule to an empty place": "add rule {f} svcnat about drop",
    "insert rule": "insert rule {f} svcnat nat-prerouting {f} saddr {stranger} return",
    "insert rule with a stolen comment": 'insert rule {f} svcnat services drop comment "#01234567"',
    "replace rule by one with its comment": "replace rule {f} svcnat nat-output handle {rule} drop comment {comment}",
    "delete rule": "delete rule {f} svcnat services handle {service_rule}",
    "flush chain": "flush chain {f} svcnat services",
    "flush all chains of a selector": "flush chain {f} svcnat {chain}",
    "add chain": "add chain {f} svcnat mine",
    "add chain with rules": (
        "add chain {f} svcnat mine\nadd rule {f} svcnat mine jump services\nadd rule {f} svcnat mine drop"
    ),
    **{
        f"add base chain at {hook}": (
            f"add chain {{f}} svcnat mine {{{{ type filter hook {hook} priority 7; policy drop; }}}}"
        )
        for hook in ("prerouting", "input", "forward", "output", "postrouting")
    },
    "add route chain": (
        "add chain {f} svcnat mine {{ type route hook output priority 7; }}\nadd rule {f} svcnat mine drop"
    ),
    "add nat chain": (
        "add chain {f} svcnat mine {{ type nat hook prerouting priority -150; }}\nadd rule {f} svcnat mine accept"
    ),
    "policy drop": "chain {f} svcnat nat-postrouting {{ policy drop; }}",
    "policy drop for prerouting": "chain {f} svcnat nat-prerouting {{ policy drop; }}",
    "base chain with another priority": (
        "flush chain {f} svcnat nat-input\n"
        "delete chain {f} svcnat nat-input\n"
        "add chain {f} svcnat nat-input {{ type nat hook input priority 5; }}"
    ),
    "base chain that is none": (
        "flush chain {f} svcnat nat-input\ndelete chain {f} svcnat nat-input\nadd chain {f} svcnat nat-input"
    ),
    "base chain at another hook": (
        "flush chain {f} svcnat nat-input\n"
        "delete chain {f} svcnat nat-input\n"
        "add chain {f} svcnat nat-input {{ type nat hook postrouting priority 100; }}"
    ),
    "rename chain": "rename chain {f} svcnat services serv2",
    "rename base chain": "rename chain {f} svcnat nat-output mine",
    "chain with a comment": 'add chain {f} svcnat mine {{ comment "mine"; }}',
    "flush table": "flush table {f} svcnat",
    "delete table": "delete table {f} svcnat",
    "delete table and make another": (
        "delete table {f} svcnat\n"
        'add table {f} svcnat {{ comment "mine"; }}\n'
        "add chain {f} svcnat services\n"
        "add rule {f} svcnat services drop"
    ),
    "dormant": "add table {f} svcnat {{ flags dormant; }}",
    "add set": "add set {f} svcnat mine {{ type inet_service; flags interval; elements = {{ 1-9 }}; }}",
    "add set with timeout": (
        "add set {f} svcnat mine {{ type inet_service; timeout 1h; elements = {{ 1 timeout 5m, 2 }}; }}"
    ),
    "add map with jumps": (
        "add map {f} svcnat mine {{ type inet_service : verdict; }}\n"
        "add element {f} svcnat mine {{ 1 : goto services, 2 : jump {chain} }}"
    ),
    "add map and rule": (
        "add map {f} svcnat mine {{ type inet_service : verdict; }}\n"
        "add chain {f} svcnat mine2\n"
        "add element {f} svcnat mine {{ 1 : goto mine2 }}\n"
        "add rule {f} svcnat services tcp dport vmap @mine"
    ),
    "flush map": "flush map {f} svcnat frontends",
    "flush set": "flush set {f} svcnat cluster-ips",
    "flush source ranges": "flush set {f} svcnat source-ranges",
    "flush every backend": (
        "flush map {f} svcnat backends-tcp\nflush map {f} svcnat backends-udp\nflush map {f} svcnat origins-tcp"
    ),
    "add set with quota": "add set {f} svcnat mine {{ type inet_service; quota 9 bytes; }}",
    "delete element": "delete element {f} svcnat frontends {{ {vip} . tcp . 80 }}",
    "delete backend": "delete element {f} svcnat backends-tcp {{ {vip} . 80 . 0 }}",
    "add element": "add element {f} svcnat hairpins {{ {stranger} . {stranger} }}",
    "add backend": "add element {f} svcnat backends-tcp {{ {stranger} . 80 . 0 : {stranger} . 8080 }}",
    "other backend": (
        "delete element {f} svcnat backends-tcp {{ {vip} . 80 . 0 }}\n"
        "add element {f} svcnat backends-tcp {{ {vip} . 80 . 0 : {stranger} . 8080 }}"
    ),
    "other verdict": (
        "delete element {f} svcnat frontends {{ {vip} . tcp . 80 }}\n"
        "add element {f} svcnat frontends {{ {vip} . tcp . 80 : drop }}"
    ),
    "verdict of a foreign chain": (
        "add chain {f} svcnat mine\n"
        "add rule {f} svcnat mine drop\n"
        "delete element {f} svcnat frontends {{ {vip} . tcp . 80 }}\n"
        "add element {f} svcnat frontends {{ {vip} . tcp . 80 : goto mine }}"
    ),
    "new element to a foreign chain": (
        "add chain {f} svcnat mine\nadd element {f} svcnat frontends {{ {stranger} . tcp . 80 : jump mine }}"
    ),
    "other comment of a verdict": (
        "delete element {f} svcnat frontends {{ {vip} . tcp . 80 }}\n"
        'add element {f} svcnat frontends {{ {vip} . tcp . 80 comment "mine" : goto {chain} }}'
    ),
    "comment of a backend": (
        "delete element {f} svcnat backends-tcp {{ {vip} . 80 . 0 }}\n"
        'add element {f} svcnat backends-tcp {{ {vip} . 80 . 0 comment "mine" : {endpoint} . 8080 }}'
    ),
    "comment of an address": (
        "delete element {f} svcnat cluster-ips {{ {vip} }}\n"
        'add element {f} svcnat cluster-ips {{ {vip} comment "mine" }}'
    ),
    "protocol that is not ours": "add element {f} svcnat frontends {{ {vip} . icmp . 80 : drop }}",
    "interval, not a prefix": "add element {f} svcnat source-ranges {{ {vip} . tcp . 81 . {range} }}",
    "interval that begins nowhere": "add element {f} svcnat source-ranges {{ {vip} . tcp . 81 . {pair} }}",
    "intervals of every field": "add element {f} svcnat source-ranges {{ {range} . tcp . 1-9 . {range} }}",
    "everyone": "add element {f} svcnat source-ranges {{ {balanced} . tcp . 80 . {everywhere} }}",
    "many elements": "add element {f} svcnat cluster-ips {{ {many} }}",
    "catch-all of a map": "add element {f} svcnat frontends {{ * : drop }}",
    "catch-all of a set": "add element {f} svcnat cluster-ips {{ * }}",
    "catch-all of backends": "add element {f} svcnat backends-tcp {{ * : {stranger} . 1 }}",
    "learned: foreign endpoint": "add element {f} svcnat {affinity} {{ {client} : {learnt} }}",
    "learned: for ever": "add element {f} svcnat {affinity} {{ {client} timeout 2d : {learnt} }}",
    "add counter": "add counter {f} svcnat mine",
    "add quota": "add quota {f} svcnat mine {{ over 9 mbytes }}",
    "add limit": "add limit {f} svcnat mine {{ rate 4/second }}",
    "add helper": 'add ct helper {f} svcnat mine {{ type "ftp" protocol tcp; }}',
    "add timeout": "add ct timeout {f} svcnat mine {{ protocol tcp; policy = {{ established: 5 }}; }}",
    "add expectation": (
        "add ct expectation {f} svcnat mine {{ protocol tcp; dport 9; timeout 1m; size 4; l3proto {f}; }}"
    ),
    "add synproxy": "add synproxy {f} svcnat mine {{ mss 1460 wscale 7 timestamp sack-perm }}",
    "add secmark": 'add secmark {f} svcnat mine {{ "system_u:object_r:ssh_server_packet_t:s0" }}',
    "add flowtable": "add flowtable {f} svcnat mine {{ hook ingress priority 0; devices = {{ lo }}; }}",
    "flowtable in use": (
        "add flowtable {f} svcnat mine {{ hook ingress priority 0; devices = {{ lo }}; }}\n"
        "add chain {f} svcnat fl {{ type filter hook forward priority 0; }}\n"
        "add rule {f} svcnat fl flow add @mine"
    ),
    "counter in use": ("add counter {f} svcnat mine\nadd rule {f} svcnat services counter name mine"),
    "counter in use by a foreign chain": (
        "add counter {f} svcnat mine\nadd chain {f} svcnat fch\nadd rule {f} svcnat fch counter name mine"
    ),
    "object map": (
        "add counter {f} svcnat mine\n"
        "add map {f} svcnat mm {{ type inet_service : counter; }}\n"
        'add element {f} svcnat mm {{ 5 : "mine" }}\n'
        "add rule {f} svcnat services counter name tcp dport map @mm"
    ),
    "objects of one name": (
        "add counter {f} svcnat mine\n"
        "add quota {f} svcnat mine {{ over 9 mbytes }}\n"
        "add limit {f} svcnat mine {{ rate 4/second }}"
    ),
}


def nft(where: str, *arguments: str, script: str | None = None) -> str:
    """What nft says in a network namespace; `script` is what it reads."""
    with netns.entered(where):
        done = subprocess.run(["nft", *arguments], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{script}: {done.stderr}"
    return done.stdout


def words(where: str, family: str) -> dict[str, str]:
    """What the scripts are filled with: names and handles as they are now, and addresses."""
    listed = json.loads(nft(where, "-j", "list", "table", family, "svcnat"))["nftables"]
    # Chains and maps may have one name, and which come first depends on the nft.
    found = [(kind == "chain", noun["name"]) for each in listed for kind, noun in each.items() if "name" in noun]
    rules = {each["rule"]["chain"]: each["rule"] for each in reversed(listed) if "rule" in each}  # the first of each
    four = family == "ip"
    names = {
        name: next(each for is_chain, each in found if is_chain is (name == "chain") and each.startswith(start))
        for name, start in (
            ("chain", "tcp-random-2"),
            ("affinity", "affinity-"),
            ("rates", "rates-"),
            ("connections", "connections-"),
        )
    }
    stranger = "203.0.113.66" if four else "2001:db8:66::66"
    return {
        **names,
        "f": family,
        "rule": str(rules["nat-output"]["handle"]),
        "comment": f'"{rules["nat-output"]["comment"]}"',
        "service_rule": str(rules["services"]["handle"]),
        "vip": "10.96.0.10" if four else "fd00:10:96::a",
        "balanced": "203.0.113.1" if four else "2001:db8:1b::1",
        "client": "198.51.100.9" if four else "2001:db8:9::9",
        "endpoint": "192.0.2.7" if four else "2001:db8:7::7",
        "stranger": stranger,
        "range": "192.0.2.5-192.0.2.7" if four else "2001:db8::5-2001:db8::7",
        "pair": "192.0.2.5-192.0.2.6" if four else "2001:db8::5-2001:db8::6",
        "everywhere": "0.0.0.0/0" if four else "::/0",
        "many": ", ".join(f"203.0.{n // 250}.{n % 250}" if four else f"2001:db8:5::{n:x}" for n in range(700)),
        "learnt": f"{stranger} . 8080" if four else stranger,
    }


def send(where: str, requests: Sequence[Request]) -> None:
    """Commit messages as one transaction, whatever others do."""
    with netns.entered(where):
        connection = Connection()
    try:
        refused = connection.transact(requests, 0)
    finally:
        connection.close()
    assert not refused, refused


@contextlib.contextmanager
def take_table(where: str, flags: int) -> Iterator[None]:
    """Be the owner of svcnat's table for IPv4, an empty one."""
    with netns.entered(where):
        connection = Connection()
    try:
        delete = _request("ip", _DELETE_TABLE, flags=0)
        refused = connection.transact([delete, _request("ip", _NEW_TABLE, attribute(2, _number(flags)))], 0)
        assert not refused, refused
        yield
    finally:
        connection.close()


# --- bytes: include/uapi/linux/netfilter/nf_tables.h ---------------------------------------------------------------

_TABLE = attribute(1, text("svcnat"))
_NEW_TABLE, _DELETE_TABLE = 0, 2
_NEW_CHAIN, _NEW_RULE, _DELETE_RULE, _NEW_SET, _NEW_ELEMENT, _DELETE_ELEMENT, _NEW_OBJECT = 3, 6, 8, 9, 12, 14, 18
_CREATE, _APPEND = 0x400, 0x800
_TCP = bytes([6, 0, 0, 0])


def _number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "big", signed=value < 0)


def _request(family: str, message: int, *parts: bytes, flags: int = _CREATE) -> Request:
    return Request(0xA00 | message, flags, NFGENMSG.pack(NFPROTO[family], 0, 0) + _TABLE + b"".join(parts))


def _object(family: str, name: str, kind: int, *data: bytes) -> Request:
    return _request(family, _NEW_OBJECT, attribute(2, text(name)), attribute(3, _number(kind)), nest(4, *data))


def _element(family: str, name: str, *parts: bytes, message: int = _NEW_ELEMENT) -> Request:
    flags = _CREATE if message == _NEW_ELEMENT else 0
    return _request(family, message, attribute(2, text(name)), nest(3, nest(1, *parts)), flags=flags)


def _set(family: str, name: str, *parts: bytes) -> Request:
    return _request(family, _NEW_SET, attribute(2, text(name)), attribute(10, _number(7)), *parts)


def _key(*fields: bytes) -> bytes:
    return nest(1, attribute(1, b"".join(fields)))


def _verdict(code: int, chain: str = "") -> bytes:
    return nest(2, nest(2, attribute(1, _number(code)), *([attribute(2, text(chain))] if chain else [])))


def _expression(name: str, *data: bytes) -> bytes:
    return attribute(1, text(name)) + nest(2, *data)


def messages(where: str, family: str) -> dict[str, list[Request]]:
    """What nft has no words for, or refuses."""
    said = words(where, family)
    vip, client = (
        socket.inet_pton(socket.AF_INET6 if ":" in said[each] else socket.AF_INET, said[each])
        for each in ("vip", "client")
    )
    port = struct.pack("!Hxx", 99)
    limit = _expression(
        "limit", attribute(1, _number(1, 8)), attribute(2, _number(604800, 8)), attribute(3, _number(1))
    )
    drop = nest(1, _expression("immediate", attribute(1, _number(0)), _verdict(0)))
    return {
        "objects that not every nft knows": [
            _object(family, "mine", 5, attribute(1, _number(3)), attribute(2, _number(0))),
        ],
        "objects whose names nft cannot say": [_object(family, "drop; x", 1), _object(family, '1"2{', 1)],
        "set whose name nft cannot say": [
            _set(family, "a b;c", attribute(3, _number(0)), attribute(4, _number(13)), attribute(5, _number(2)))
        ],
        "chain whose name nft cannot say": [_request(family, _NEW_CHAIN, attribute(3, text("a b;c")))],
        "element with a quota": [
            _element(family, "cluster-ips", _key(vip), message=_DELETE_ELEMENT),
            _element(
                family,
                "cluster-ips",
                _key(vip),
                nest(7, _expression("quota", attribute(1, _number(0, 8)), attribute(2, _number(0)))),
            ),
        ],
        "verdict that returns": [_element(family, "frontends", _key(vip, _TCP, port), _verdict(-5))],
        "protocol that is longer than one": [
            _element(family, "frontends", _key(vip, bytes([6, 1, 2, 3]), port), _verdict(0))
        ],
        "port that is longer than one": [
            _element(family, "frontends", _key(vip, _TCP, struct.pack("!HH", 80, 7)), _verdict(0))
        ],
        "name of a link that nft cannot say": [
            _element(family, "bridge-hairpins", _key(struct.pack("16s16s", b'x"; flush', b"y")))
        ],
        "comment that is no text": [
            _element(family, "frontends", _key(vip, _TCP, port), _verdict(0), attribute(6, b"\xff\xfe\x00\x80"))
        ],
        "rule without a comment": [
            _request(family, _NEW_RULE, attribute(2, text("services")), nest(4, drop), flags=_CREATE | _APPEND)
        ],
        "rule without anything": [_request(family, _NEW_RULE, attribute(2, text("services")), flags=_CREATE | _APPEND)],
        "rules of all chains": [_request(family, _DELETE_RULE, flags=0)],
        "limit of a client": [_element(family, said["rates"], _key(client), nest(7, limit))],
        "connections of a client": [
            _element(
                family, said["connections"], _key(client), nest(7, _expression("connlimit", attribute(1, _number(1))))
            )
        ],
    }
