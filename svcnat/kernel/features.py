"""What this kernel, with this libnftables, can do of what the rules need.

Each feature is a few lines of nftables that the kernel is asked about without committing them, in a network namespace
that nobody else is in and that ends with the question. Nothing is left behind, but for modules that the kernel loads
when it is asked, as it would for the rules themselves. What a missing feature means for anybody is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from svcnat.errors import KernelError, PrivilegeError
from svcnat.kernel import netns
from svcnat.kernel.libnftables import Libnftables
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.diff import diff
from svcnat.ruleset.nftables import render_change
from svcnat.ruleset.plan import Settings, plan


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that rules are made of.

    ``script``: what the kernel is asked, for each family, with FAMILY, ADDRESS (its type) and SADDR, DADDR filled in;
    it finds a table ``t`` with a NAT base chain ``p``. ``needed_for``: "" if there are no rules without it, else what
    can do without. ``option`` is the kernel's build option, ``since`` the Linux version that brought the feature.
    """

    name: str
    script: str
    option: str
    since: str
    needed_for: str = ""


_BACKENDS = (
    "add map FAMILY t b { typeof DADDR . tcp dport . numgen random mod 65536 : DADDR . tcp dport; size 4096; }\n"
)

FEATURES: tuple[Feature, ...] = (
    Feature("NAT chains", "", "NF_TABLES_IPV4, NF_TABLES_IPV6 and NFT_NAT", "4.18"),
    Feature(
        "maps of addresses and ports",
        _BACKENDS + "add rule FAMILY t p dnat FAMILY to DADDR . tcp dport . numgen random mod 3 map @b",
        "NFT_NAT and NFT_NUMGEN",
        "5.5",
    ),
    Feature(
        "counters of elements",
        "add map FAMILY t f { type ADDRESS . inet_proto . inet_service : verdict; size 4096; counter; }",
        "NF_TABLES",
        "5.7",
    ),
    Feature(
        "sets of ranges",
        "add set FAMILY t r { type ADDRESS . inet_proto . inet_service . ADDRESS; flags interval; }",
        "NF_TABLES",
        "5.6",
    ),
    Feature(
        "refusing from NAT chains",
        "add rule FAMILY t p meta l4proto tcp reject with tcp reset\nadd rule FAMILY t p reject",
        "NFT_REJECT",
        "5.9",
    ),
    Feature("masquerading", "add rule FAMILY t q masquerade fully-random", "NFT_MASQ", "3.18"),
    Feature(
        "looking up routes", "add rule FAMILY t p fib saddr type local return", "NFT_FIB_IPV4 and NFT_FIB_IPV6", "4.10"
    ),
    Feature("the state of connections", "add rule FAMILY t q ct status dnat return", "NFT_CT", "3.18"),
    Feature(
        "hashes",
        _BACKENDS + "add rule FAMILY t p dnat FAMILY to DADDR . tcp dport . jhash SADDR mod 7 seed 0x2a map @b",
        "NFT_HASH",
        "4.10",
        "the schedulers source-hash and maglev",
    ),
    Feature(
        "maps that packets fill",
        "add map FAMILY t a { type ADDRESS : ADDRESS; flags dynamic,timeout; timeout 60s; size 65535; }\n"
        "add rule FAMILY t q update @a { SADDR timeout 60s : DADDR }",
        "NF_TABLES",
        "5.3",
        "sessionAffinity",
    ),
    Feature(
        "counting a client's connections",
        "add set FAMILY t n { type ADDRESS; flags dynamic; size 65535; }\n"
        "add rule FAMILY t p add @n { SADDR ct count over 100 } drop",
        "NFT_CONNLIMIT",
        "4.18",
        "svcnat.io/max-connections",
    ),
    Feature(
        "limiting a client's rate",
        "add set FAMILY t l { type ADDRESS; flags dynamic,timeout; timeout 2s; size 65535; }\n"
        "add rule FAMILY t p update @l { SADDR limit rate over 10/second burst 10 packets } drop",
        "NFT_LIMIT",
        "4.3",
        "svcnat.io/connection-rate",
    ),
)

# Beside the features, the constant rules as a whole: what nobody thought of is in them.
WHOLE = Feature("svcnat's rules", "", "NF_TABLES", "5.10")

_WORDS = {
    "ip": {"FAMILY": "ip", "ADDRESS": "ipv4_addr", "SADDR": "ip saddr", "DADDR": "ip daddr"},
    "ip6": {"FAMILY": "ip6", "ADDRESS": "ipv6_addr", "SADDR": "ip6 saddr", "DADDR": "ip6 daddr"},
}
_BASE = """add table FAMILY t
add chain FAMILY t p { type nat hook prerouting priority -100; }
add chain FAMILY t q { type nat hook postrouting priority 99; }
"""


@dataclass(frozen=True, slots=True)
class Missing:
    """A feature that a family (ip, ip6) cannot have, and what the kernel or libnftables said."""

    feature: Feature
    family: str
    reason: str


def missing(check: Callable[[str], None] | None = None) -> tuple[Missing, ...]:
    """The features that are not there, asked of the kernel in a network namespace of no name.

    `check` is who is asked instead, with the meaning and the errors of :meth:`Libnftables.check`.

    Raises:
        PrivilegeError: making a network namespace, or nftables in it, is not allowed.
        MissingError: libnftables is not installed, or the kernel has no nftables.

    """
    return tuple(_ask(check)) if check else netns.call_apart(lambda: tuple(_ask(Libnftables().check)))


def script(feature: Feature, family: str) -> str:
    """What the kernel is asked about a feature in a family (ip, ip6), with the table and the chains that it needs."""
    text = _BASE + feature.script
    for word, meaning in _WORDS[family].items():
        text = text.replace(word, meaning)
    return text


def _ask(check: Callable[[str], None]) -> Iterator[Missing]:
    for family in _WORDS:
        found = False
        for feature in FEATURES:
            if reason := _refusal(check, script(feature, family)):
                found = True
                yield Missing(feature, family, reason)
        if not found and (reason := _refusal(check, _constant_rules(family))):
            yield Missing(WHOLE, family, reason)


def _refusal(check: Callable[[str], None], text: str) -> str:
    try:
        check(text)
    except PrivilegeError:
        raise
    except KernelError as error:
        return str(error)
    return ""


def _constant_rules(family: str) -> str:
    ruleset = compile_plan(plan((), (), Settings()))
    return render_change({each: part for each, part in diff({}, ruleset).items() if each == family})
