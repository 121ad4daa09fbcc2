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
from functools import cache

from svcnat.kernel.netlink import Attributes, address, attribute, attributes, nest, walk
from svcnat.ruleset.nouns import Data, Key, Set, Verdict
from svcnat.ruleset.strings import is_link

_KEY, _DATA, _FLAGS, _USERDATA, _EXPRESSION, _KEY_END, _EXPRESSIONS = 1, 2, 3, 6, 7, 10, 11  # NFTA_SET_ELEM_*
_VALUE, _VERDICT = 1, 2  # NFTA_DATA_*
_LIST_ELEMENT = 1  # NFTA_LIST_ELEM
_CODE, _CHAIN = 1, 2  # NFTA_VERDICT_*
_LIMIT_RATE, _LIMIT_UNIT, _LIMIT_BURST, _LIMIT_TYPE, _LIMIT_FLAGS = 1, 2, 3, 4, 5  # NFTA_LIMIT_*
_CONNLIMIT_COUNT, _CONNLIMIT_FLAGS, _OVER = 1, 2, 1  # NFTA_CONNLIMIT_*, NFT_LIMIT_F_INV
_UNITS = {1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}
_ACTIONS = {0: "drop", 1: "accept", -3: "jump", -4: "goto", -5: "return"}  # enum nft_verdicts, netfilter.h

_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_PROTOCOL_NUMBERS = {name: number for number, name in _PROTOCOLS.items()}
_WIDTH = {"ipv4_addr": 4, "ipv6_addr": 16, "inet_proto": 4, "inet_service": 4, "slot": 4, "ifname": 16}
_ALONE = {"inet_proto": 1, "inet_service": 2}  # only in a concatenation is a field padded
PREFIX = "/prefix"  # a range of addresses, as the last field of an interval set
_PADDED = {"inet_proto": 0x00FFFFFF, "inet_service": 0x0000FFFF}  # bits of a register that are not the field's
_VERDICTS = ("verdict",)
_FOREIGN: Data = ("?",)  # data of an element that is not as svcnat makes it, though its key could be ours


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


def read_range(fields: tuple[str, ...], first: bytes, last: bytes) -> Key | None:
    """The key of an element of an interval set, whose last field is a range, as a CIDR; None if it is none.

    svcnat writes nothing but CIDRs, and single values of the other fields.
    """
    *same, final = fields
    kind = final.removesuffix(PREFIX)
    low, high = first[-_WIDTH[kind] :], last[-_WIDTH[kind] :]
    start = int.from_bytes(low, "big")
    size = int.from_bytes(high, "big") - start + 1
    if first[: -_WIDTH[kind]] != last[: -_WIDTH[kind]] or size < 1 or size & (size - 1) or start % size:
        return None
    prefix = 8 * len(low) - size.bit_length() + 1
    return (*read_fields(tuple(same), first), f"{address(low)}/{prefix}")


@cache
def width(fields: tuple[str, ...]) -> int:
    """The bytes of a concatenation, or of a single field."""
    kinds = [field.removesuffix(PREFIX) for field in fields]
    return _ALONE.get(kinds[0], _WIDTH[kinds[0]]) if len(kinds) == 1 else sum(_WIDTH[kind] for kind in kinds)


@cache
def _padding(fields: tuple[str, ...]) -> int:
    """The bits of a key that are no field's: packets have none of them set."""
    if len(fields) == 1:
        return 0
    bits = 0
    for kind in (field.removesuffix(PREFIX) for field in fields):
        bits = bits << 8 * _WIDTH[kind] | _PADDED.get(kind, 0)
    return bits


def read_elements(
    declared: Set, listed: memoryview, *, keys_only: bool = False, strange: list[bytes] | None = None
) -> Iterator[tuple[Key, Data]]:
    """The (key, data) pairs of an NFTA_SET_ELEM_LIST_ELEMENTS attribute of that set; None for data not asked for.

    `strange` gets those whose key is none that svcnat could write (a catch-all, a range), as the kernel wants them to
    be named for their deletion. An element of a good key that is otherwise not as svcnat makes it has data that no
    element of svcnat's has; what packets learn is not added again, so there it is strange, too.
    """
    padding = _padding(declared.fields)
    for _, element in walk(listed):
        parts = attributes(element)
        key = _key(declared, parts, padding)
        foreign = not keys_only and _is_foreign(declared, parts)
        if key is None or (foreign and declared.dynamic):
            if strange is not None:
                strange.append(identity(parts))
        elif foreign:
            yield key, _FOREIGN
        elif keys_only or not declared.is_map:
            yield key, None
        elif declared.data_fields == _VERDICTS:
            yield key, _verdict(parts)
        else:
            yield key, read_fields(declared.data_fields, bytes(attributes(parts[_DATA])[_VALUE]))


def _key(declared: Set, parts: Attributes, padding: int) -> Key | None:
    """The key of an element; None if svcnat could not have written it."""
    if _KEY not in parts:
        return None  # a catch-all
    raw = bytes(attributes(parts[_KEY])[_VALUE])
    if padding and int.from_bytes(raw, "big") & padding:
        return None
    if _KEY_END in parts:
        return read_range(declared.fields, raw, bytes(attributes(parts[_KEY_END])[_VALUE]))
    if "ifname" in declared.fields and not _are_names(raw):
        return None
    return read_fields(declared.fields, raw)


def _are_names(raw: bytes) -> bool:
    """True if all of these are names of links that nft's text can say."""
    names = (raw[start : start + 16].rstrip(b"\0") for start in range(0, len(raw), 16))
    return all(is_link(name.decode(errors="replace")) for name in names)


def _is_foreign(declared: Set, parts: Attributes) -> bool:
    """True if an element does more than svcnat's: an expression that decides, or a comment that says something else."""
    if not declared.counter and (_EXPRESSION in parts or _EXPRESSIONS in parts):
        return True  # where there is a counter, the kernel takes nothing else
    return declared.data_fields != _VERDICTS and bool(comment(parts.get(_USERDATA)))


def identity(parts: Attributes) -> bytes:
    """What the kernel knows an element by, as an NFTA_LIST_ELEM."""
    flags = attribute(_FLAGS, bytes(parts[_FLAGS])) if _FLAGS in parts else b""
    keys = (nest(kind, bytes(parts[kind])) for kind in (_KEY, _KEY_END) if kind in parts)
    return nest(_LIST_ELEMENT, flags, *keys)


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


def over_limit(element: memoryview) -> str:
    """What the expression of an NFTA_LIST_ELEM refuses, in nft's words; "" if it is none of svcnat's limits."""
    parts = attributes(element)
    expressions = list(_expressions(parts))
    if len(expressions) != 1:
        return ""
    named = attributes(expressions[0])
    said = {kind: int.from_bytes(value, "big") for kind, value in walk(named[2])}
    match bytes(named[1]).rstrip(b"\0"):
        case b"limit" if said.get(_LIMIT_TYPE, 0) == 0 and said.get(_LIMIT_FLAGS) == _OVER:
            unit = _UNITS.get(said[_LIMIT_UNIT], "?")
            return f"limit rate over {said[_LIMIT_RATE]}/{unit} burst {said.get(_LIMIT_BURST, 0)} packets"
        case b"connlimit" if said.get(_CONNLIMIT_FLAGS) == _OVER:
            return f"ct count over {said[_CONNLIMIT_COUNT]}"
    return ""


def _expressions(parts: Attributes) -> Iterator[memoryview]:
    if _EXPRESSION in parts:
        yield parts[_EXPRESSION]
    if _EXPRESSIONS in parts:
        yield from (expression for _, expression in walk(parts[_EXPRESSIONS]))


def counter(element: memoryview) -> tuple[int, int] | None:
    """The (packets, bytes) of one NFTA_LIST_ELEM, None if it has no counter."""
    for expression in _expressions(attributes(element)):
        named = attributes(expression)
        if bytes(named[1]).rstrip(b"\0") == b"counter":
            counted = attributes(named[2])
            return int.from_bytes(counted[2], "big"), int.from_bytes(counted[1], "big")
    return None
