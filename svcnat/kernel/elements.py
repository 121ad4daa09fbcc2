"""Elements of sets and maps, between the kernel's bytes and the ruleset's keys and data.

Each field of a concatenation takes whole registers of four bytes: addresses and ports big-endian, a number that the
kernel computed (numgen) host-endian. Which field has which type comes with the set's declaration.
Source: nft_set_ext in include/net/netfilter/nf_tables.h; measured with `nft --debug=netlink`.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterator

from svcnat.kernel.netlink import Attributes, address, attribute, attributes, nest, walk
from svcnat.ruleset.nouns import Data, Key, Set, Verdict

_KEY, _DATA, _USERDATA, _EXPRESSION, _KEY_END, _EXPRESSIONS = 1, 2, 6, 7, 10, 11  # NFTA_SET_ELEM_*
_VALUE, _VERDICT = 1, 2  # NFTA_DATA_*
_LIST_ELEMENT = 1  # NFTA_LIST_ELEM
_CODE, _CHAIN = 1, 2  # NFTA_VERDICT_*
_ACTIONS = {0: "drop", 1: "accept", -3: "jump", -4: "goto", -5: "return"}  # enum nft_verdicts, netfilter.h

_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_PROTOCOL_NUMBERS = {name: number for number, name in _PROTOCOLS.items()}
_WIDTH = {"ipv4_addr": 4, "ipv6_addr": 16, "inet_proto": 4, "inet_service": 4, "slot": 4, "ifname": 16}
_ALONE = {"inet_proto": 1, "inet_service": 2}  # only in a concatenation is a field padded
PREFIX = "/prefix"  # a range of addresses, as the last field of an interval set


_READ: dict[str, Callable[[bytes], str | int]] = {
    "ipv4_addr": address,
    "ipv6_addr": address,
    "inet_proto": lambda raw: _PROTOCOLS.get(raw[0], str(raw[0])),
    "inet_service": lambda raw: raw[0] << 8 | raw[1],
    "slot": lambda raw: int.from_bytes(raw, sys.byteorder),
    "ifname": lambda raw: raw.rstrip(b"\0").decode(errors="replace"),
}

_WRITE: dict[str, Callable[[str | int], bytes]] = {
    "ipv4_addr": lambda value: socket.inet_pton(socket.AF_INET, str(value)),
    "ipv6_addr": lambda value: socket.inet_pton(socket.AF_INET6, str(value)),
    "inet_proto": lambda value: struct.pack("=Bxxx", _PROTOCOL_NUMBERS[str(value)]),
    "inet_service": lambda value: struct.pack("!Hxx", value),
    "slot": lambda value: struct.pack("=I", value),
    "ifname": lambda value: struct.pack("16s", str(value).encode()),
}


def read_fields(fields: tuple[str, ...], raw: bytes) -> tuple[str | int, ...]:
    """The fields of a concatenation."""
    values, position = [], 0
    for kind in fields:
        width = _WIDTH[kind]
        values.append(_READ[kind](raw[position : position + width]))
        position += width
    return tuple(values)


def write_fields(fields: tuple[str, ...], values: Key) -> bytes:
    """The bytes of a concatenation: the inverse of :func:`read_fields`."""
    raw = b"".join(_WRITE[kind](value) for kind, value in zip(fields, values, strict=True))
    return raw[: _ALONE.get(fields[0])] if len(fields) == 1 else raw


def read_range(fields: tuple[str, ...], first: bytes, last: bytes) -> Key:
    """The key of an element of an interval set, whose last field is a range, as a CIDR.

    svcnat writes nothing but CIDRs; a stranger's other range comes out as no CIDR of ours.
    """
    *same, final = fields
    kind = final.removesuffix(PREFIX)
    low, high = first[-_WIDTH[kind] :], last[-_WIDTH[kind] :]
    size = int.from_bytes(high, "big") - int.from_bytes(low, "big") + 1
    prefix = 8 * len(low) - size.bit_length() + 1
    return (*read_fields(tuple(same), first), f"{address(low)}/{prefix}")


def read_elements(declared: Set, listed: memoryview, *, keys_only: bool = False) -> Iterator[tuple[Key, Data]]:
    """The (key, data) pairs of an NFTA_SET_ELEM_LIST_ELEMENTS attribute of that set; None for data not asked for."""
    for _, element in walk(listed):
        parts = attributes(element)
        raw = bytes(attributes(parts[_KEY])[_VALUE])
        if _KEY_END in parts:
            key = read_range(declared.fields, raw, bytes(attributes(parts[_KEY_END])[_VALUE]))
        else:
            key = read_fields(declared.fields, raw)
        if keys_only or not declared.is_map:
            yield key, None
        elif declared.data_fields == ("verdict",):
            yield key, _verdict(parts)
        else:
            yield key, read_fields(declared.data_fields, bytes(attributes(parts[_DATA])[_VALUE]))


def _verdict(parts: Attributes) -> Verdict:
    found = read_verdict(parts[_DATA])
    assert found is not None
    return found._replace(comment=comment(parts.get(_USERDATA)))


def read_verdict(data: memoryview) -> Verdict | None:
    """The verdict of an attribute of data (enum nft_data_attributes); None if it is a value."""
    nested = attributes(data)
    if _VERDICT not in nested:
        return None
    verdict = attributes(nested[_VERDICT])
    code = int.from_bytes(verdict[_CODE], "big", signed=True)
    chain = bytes(verdict[_CHAIN]).rstrip(b"\0").decode(errors="replace") if _CHAIN in verdict else ""
    return Verdict(_ACTIONS.get(code, str(code)), chain)


def comment(userdata: memoryview | None, kind: int = 0) -> str:
    """The comment in a noun's userdata, a run of (type, length, value) with one byte each for the first two.

    `kind` is the type of the comment there: 0 for rules and elements, 7 for sets (libnftnl's udata.h).
    """
    position = 0
    while userdata is not None and position + 2 <= len(userdata):
        found, length = userdata[position], userdata[position + 1]
        if found == kind:
            return bytes(userdata[position + 2 : position + 2 + length]).rstrip(b"\0").decode(errors="replace")
        position += 2 + length
    return ""


def one_element(declared: Set, key: Key) -> bytes:
    """The NFTA_SET_ELEM_LIST_ELEMENTS payload that asks for one key."""
    return nest(_LIST_ELEMENT, nest(_KEY, attribute(_VALUE, write_fields(declared.fields, key))))


def counter(element: memoryview) -> tuple[int, int] | None:
    """The (packets, bytes) of one NFTA_LIST_ELEM, None if it has no counter."""
    parts = attributes(element)
    expressions = [parts[_EXPRESSION]] if _EXPRESSION in parts else []
    if _EXPRESSIONS in parts:
        expressions += [expression for _, expression in walk(parts[_EXPRESSIONS])]
    for expression in expressions:
        named = attributes(expression)
        if bytes(named[1]).rstrip(b"\0") == b"counter":
            counted = attributes(named[2])
            return int.from_bytes(counted[2], "big"), int.from_bytes(counted[1], "big")
    return None
