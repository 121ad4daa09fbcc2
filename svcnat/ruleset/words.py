"""The words of nft's own language, which cannot be the names of what its text is about.

nft cannot quote a name, and the kernel takes any. A word too many does no harm here. Source: nft(8), version 1.0.6,
and what later versions added.
"""

from __future__ import annotations

KEYWORDS = frozenset(
    """
    accept add ah all and arp auto-merge bridge cgroup chain comment comp constant continue counter counters cpu
    create ct day dccp define delete describe destroy device devices dnat drop dst dup dynamic ecn egress
    element elements eq esp ether exists expectation expires export exthdr fib flags flow flowtable flowtables
    flush frag fully-random fwd gc-interval ge geneve get goto gre gretap gt handle hbh helper hook hooks hour
    ibriport ibrname icmp icmpv6 igmp iif iifgroup iifname iiftype import include index inet insert interval ip
    ip6 ipsec jhash jump last le limit limits list log lt map maps mark masquerade meta meter meters mh missing
    monitor ne netdev nftrace not notrack numgen obriport obrname oif oifgroup oifname oiftype or osf pkttype
    policy position priority queue queue-threshold quota quotas redefine redirect reject rename replace reset
    return rt rt0 rt2 rt4 rtclassid rule rules ruleset sctp secmark secmarks set sets size skgid skuid snat
    socket srh symhash synproxy synproxys table tables tcp th time timeout tproxy type typeof udp udplite
    undefine update vlan vmap vxlan xml xor xt
    """.split()  # noqa: SIM905 - two hundred quotes would be harder to read
)
