"""nf_tables over netlink: reading object by object, and writing transactions.

libnftables reads the whole ruleset into its cache before it answers anything: 12 to 20 s and 650 MB for 300,000
elements. So it only writes structure (:mod:`svcnat.kernel.libnftables`); reading is done here. This module knows
the messages, not what svcnat keeps in the tables: :mod:`svcnat.kernel.nftables` and :mod:`svcnat.kernel.batch` do.
Source: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from svcnat.kernel import netlink
from svcnat.kernel.netlink import Attributes, Refusal, Request, attribute, attributes

NFPROTO = {"ip": 2, "ip6": 10}

# Message types of the nf_tables subsystem (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_*).
GETTABLE, GETCHAIN, GETRULE, GETSET, GETSETELEM, GETGEN = (0xA00 | n for n in (1, 4, 7, 10, 13, 16))

GETOBJECT, GETFLOWTABLE = (0xA00 | n for n in (19, 23))

NEWSETELEM, DELSETELEM = (0xA00 | n for n in (12, 14))

NFGENMSG = struct.Struct("=BBH")  # nfgenmsg: family, version, resource id
_BEGIN, _END = 0x10, 0x11  # NFNL_MSG_BATCH_BEGIN, _END
_SUBSYSTEM = struct.pack("=BB", 0, 0) + struct.pack("!H", 10)  # an nfgenmsg that names NFNL_SUBSYS_NFTABLES
_GENERATION = 1  # NFNL_BATCH_GENID
_LARGEST_GENERATION = 2**32 - 1


class Connection:
    """A netlink socket in the network namespace of the thread that makes it; it stays there."""

    def __init__(self) -> None:
        self._netlink = netlink.Connection(netlink.NETFILTER, "nftables")

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def get(self, message: int, family: str, *, payload: bytes = b"") -> Attributes | None:
        """Ask for one object: its attributes, or None if there is no such object."""
        answer = self._netlink.get(message, NFGENMSG.pack(NFPROTO[family], 0, 0) + payload)
        return None if answer is None else attributes(answer[NFGENMSG.size :])

    def dump(self, message: int, family: str) -> list[Attributes]:
        """All objects of a kind, in whatever table.

        Raises:
            StaleError: they change at every look.

        """
        answers = self._netlink.dump_whole(message, NFGENMSG.pack(NFPROTO[family], 0, 0))
        return [attributes(answer[NFGENMSG.size :]) for answer in answers]

    def dump_in(self, message: int, family: str, payload: bytes) -> Iterator[Attributes]:
        """Ask for all objects of a kind in the table that `payload` names.

        The kernel calls an answer torn if anybody commits meanwhile, to whatever table. Where others never stop, only
        events tell whether it is: that is the caller's business.
        """
        for answer in self._netlink.dump(message, NFGENMSG.pack(NFPROTO[family], 0, 0) + payload, torn=True):
            yield attributes(answer[NFGENMSG.size :])

    def transact(self, requests: Sequence[Request], generation: int) -> list[Refusal]:
        """Send a transaction that the kernel takes only if the ruleset is of this generation; what was refused.

        All of it happens, or nothing. Places in the answer are those in `requests`; -1 stands for the whole.

        Raises:
            TooLargeError: it may not be sent in one piece.

        """
        begin = Request(_BEGIN, 0, _SUBSYSTEM + attribute(_GENERATION, struct.pack("!I", generation)))
        last = requests[-1]._replace(flags=requests[-1].flags | netlink.ACKNOWLEDGE)
        said = self._netlink.transact([begin, *requests[:-1], last, Request(_END, 0, _SUBSYSTEM)])
        refused = [each._replace(place=each.place - 1) for each in said if each.number]
        assert refused or said, "the kernel neither took nor refused a transaction"
        return refused

    def generation(self) -> int:
        """The id of this namespace's ruleset: every commit of any table moves it (NFTA_GEN_ID)."""
        answer = self.get(GETGEN, "ip")
        assert answer is not None
        return int.from_bytes(answer[1], "big")


def following(generation: int, commits: int = 1) -> int:
    """The id after some commits: 0 is left out, since it stands for any (nft_base_seq)."""
    return (generation + commits - 1) % _LARGEST_GENERATION + 1


def is_newer(generation: int, other: int) -> bool:
    """True if an id came after another one; ids begin anew after the last."""
    return 0 < (generation - other) % 2**32 < 2**31
