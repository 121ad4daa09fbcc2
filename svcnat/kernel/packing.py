"""Elements as the bytes that the kernel takes, many at a time.

All elements of a set or map are records of one size, but for verdicts, whose chains and comments are of any length.
So a struct packs them, fed column by column: no Python code runs for a single element. Reading them back is
:mod:`svcnat.kernel.elements`' work. Source: nft_set_elem_attributes in include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from ipaddress import ip_network
from itertools import islice, repeat
from operator import itemgetter
from typing import Any

from svcnat.kernel.netlink import NESTED, attribute, nest, text
from svcnat.ruleset.nouns import Data, Key, Set, Verdict

_ELEMENT = 1  # NFTA_LIST_ELEM
_KEY, _DATA, _USERDATA, _KEY_END = 1, 2, 6, 10  # NFTA_SET_ELEM_*
_VALUE, _VERDICT = 1, 2  # NFTA_DATA_*
_CODE, _CHAIN = 1, 2  # NFTA_VERDICT_*
_VERDICTS = {"drop": 0, "accept": 1, "jump": -3, "goto": -4, "return": -5}  # enum nft_verdicts, netfilter.h
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_HEADER = struct.Struct("=HH")  # nlattr: length, type

LONGEST = 0xFFFF - 4  # bytes in one attribute


@lru_cache(maxsize=4096)
def _ends(cidr: str) -> tuple[bytes, bytes]:
    network = ip_network(cidr)
    return network.network_address.packed, network.broadcast_address.packed


def _first(cidr: str) -> bytes:
    return _ends(cidr)[0]


def _last(cidr: str) -> bytes:
    return _ends(cidr)[1]


@dataclass(frozen=True, slots=True)
class _Field:
    """How one field is packed: its size, its struct format (big-endian, padded to registers), and what makes it fit."""

    size: int
    format: str
    convert: Callable[[Any], Any] | None = None
    alone: int = 0  # its size where it is the only field, and no padding is counted


_FIELDS = {
    "ipv4_addr": _Field(4, "4s", partial(socket.inet_pton, socket.AF_INET)),
    "ipv6_addr": _Field(16, "16s", partial(socket.inet_pton, socket.AF_INET6)),
    "inet_proto": _Field(4, "B3x", _PROTOCOLS.__getitem__, alone=1),
    "inet_service": _Field(4, "H2x", alone=2),
    "slot": _Field(4, "I", socket.htonl),  # a number that the kernel computed: host-endian
    "ifname": _Field(16, "16s", str.encode),
    "ipv4_addr/prefix": _Field(4, "4s", _first),
    "ipv6_addr/prefix": _Field(16, "16s", _first),
}
_PREFIXES = ("ipv4_addr/prefix", "ipv6_addr/prefix")


class _Value:
    """An attribute with an NFTA_DATA_VALUE in it: what precedes the fields, and their format."""

    def __init__(self, kind: int, fields: tuple[str, ...], *, last: bool = False) -> None:
        parts = [_FIELDS[field] for field in fields]
        padded = sum(part.size for part in parts)
        size = (parts[0].alone if len(parts) == 1 else 0) or padded
        self.head = _HEADER.pack(8 + padded, kind | NESTED) + _HEADER.pack(4 + size, _VALUE)
        self.format = "8s" + "".join(part.format for part in parts)
        self._converters = [part.convert for part in parts]
        if last:
            self._converters[-1] = _last

    def columns(self, rows: Iterable[Any]) -> Iterator[Iterable[Any]]:
        """What the format wants, column by column; `rows` can be iterated many times."""
        yield repeat(self.head)
        for index, convert in enumerate(self._converters):
            column = map(itemgetter(index), rows)
            yield column if convert is None else map(convert, column)


class Packer:
    """Makes records (NFTA_LIST_ELEM) of the elements of one set or map."""

    def __init__(self, declared: Set) -> None:
        self._keys = [_Value(_KEY, declared.fields)]
        if declared.fields[-1] in _PREFIXES:
            self._keys.append(_Value(_KEY_END, declared.fields, last=True))
        self._verdicts = declared.data_fields == ("verdict",)
        self._data = [_Value(_DATA, declared.data_fields)] if declared.data_fields and not self._verdicts else []

    def messages(self, elements: Mapping[Key, Data], *, with_data: bool) -> Iterator[bytes]:
        """The elements, or their keys alone, in as many runs of records as fit an attribute each."""
        if self._verdicts and with_data:
            _, keys = self._records(elements, with_data=False)
            yield from runs(map(_verdict_record, keys, elements.values()))
            return
        size, records = self._records(elements, with_data=with_data)
        while run := b"".join(islice(records, LONGEST // size)):
            yield run

    def _records(self, elements: Mapping[Key, Data], *, with_data: bool) -> tuple[int, Iterator[bytes]]:
        """The size of a record, and the records."""
        data = self._data if with_data else []
        record = struct.Struct(">4s" + "".join(value.format for value in (*self._keys, *data)))
        head = _HEADER.pack(record.size, _ELEMENT | NESTED)
        columns = [column for value in self._keys for column in value.columns(elements.keys())]
        columns += [column for value in data for column in value.columns(elements.values())]
        return record.size, map(record.pack, repeat(head, len(elements)), *columns)


def _verdict_record(key: bytes, verdict: Data) -> bytes:
    """The record of an element whose key is packed already as a record of its own."""
    assert isinstance(verdict, Verdict)
    tail = _verdict(verdict.action, verdict.chain) + (_comment(verdict.comment) if verdict.comment else b"")
    return _HEADER.pack(len(key) + len(tail), _ELEMENT | NESTED) + key[4:] + tail


@lru_cache(maxsize=4096)
def _verdict(action: str, chain: str) -> bytes:
    code = attribute(_CODE, struct.pack("!i", _VERDICTS[action]))
    return nest(_DATA, nest(_VERDICT, code, *([attribute(_CHAIN, text(chain))] if chain else [])))


def _comment(comment: str) -> bytes:
    """As nft writes it: a type (0), a length, the text with its NUL (libnftnl's udata.h)."""
    raw = text(comment)
    return attribute(_USERDATA, bytes((0, len(raw))) + raw)


def runs(records: Iterable[bytes]) -> Iterator[bytes]:
    """Records in as many runs as fit an attribute each."""
    run: list[bytes] = []
    size = 0
    for record in records:
        if size + len(record) > LONGEST:
            yield b"".join(run)
            run, size = [], 0
        run.append(record)
        size += len(record)
    if run:
        yield b"".join(run)


@lru_cache(maxsize=256)
def packer(declared: Set) -> Packer:
    """The packer of a set, which is made once."""
    return Packer(declared)
