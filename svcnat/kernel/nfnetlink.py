"""Reading nf_tables over netlink, object by object.

libnftables reads the whole ruleset into its cache before it answers anything: 12 to 20 s and 650 MB for 300,000
elements. So it only writes (:mod:`svcnat.kernel.libnftables`), and reading is done here. This module knows
the messages, not what svcnat keeps in the tables (:mod:`svcnat.kernel.nftables` does), and it never writes.
Source: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from svcnat.kernel import netlink
from svcnat.kernel.netlink import Attributes, attributes

NFPROTO = {"ip": 2, "ip6": 10}

# Message types of the nf_tables subsystem (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_*).
GETTABLE, GETCHAIN, GETRULE, GETSET, GETSETELEM, GETGEN = (0xA00 | n for n in (1, 4, 7, 10, 13, 16))

_NFGENMSG = struct.Struct("=BBH")  # nfgenmsg: family, version, resource id


class Connection:
    """A netlink socket in the network namespace of the thread that makes it; it stays there."""

    def __init__(self) -> None:
        self._netlink = netlink.Connection(netlink.NETFILTER, "nftables")

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def get(self, message: int, family: str, *, payload: bytes = b"") -> Attributes | None:
        """Ask for one object: its attributes, or None if there is no such object."""
        answer = self._netlink.get(message, _NFGENMSG.pack(NFPROTO[family], 0, 0) + payload)
        return None if answer is None else attributes(answer[_NFGENMSG.size :])

    def dump(self, message: int, family: str, *, payload: bytes = b"") -> Iterator[Attributes]:
        """Ask for all objects of a kind.

        Raises:
            StaleError: the ruleset changed meanwhile, so that the answer may be torn. Ask again.

        """
        for answer in self._netlink.dump(message, _NFGENMSG.pack(NFPROTO[family], 0, 0) + payload):
            yield attributes(answer[_NFGENMSG.size :])

    def generation(self) -> int:
        """The id of this namespace's ruleset: every commit of any table moves it (NFTA_GEN_ID)."""
        answer = self.get(GETGEN, "ip")
        assert answer is not None
        return int.from_bytes(answer[1], "big")
