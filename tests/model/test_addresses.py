"""Addresses and ranges have one spelling."""

import pytest

from svcnat.model.addresses import canonical, canonical_network, family, parse_network, unusable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("255.255.255.255", "255.255.255.255"),
        ("FD00:0:0::0001", "fd00::1"),
        ("::", "::"),
        ("010.0.0.1", None),
        ("10.0.0.256", None),
        ("10.0.0", None),
        ("10.0.0.1\n", None),
        ("fe80::1%eth0", None),
        ("::ffff:10.0.0.1", None),
        ("fd00::g", None),
        ("", None),
        ("back-end", None),
    ],
)
def test_canonical(text: str, expected: str | None) -> None:
    """One spelling per address; what programs read differently (leading zeros, zones, mapped) is none."""
    assert canonical(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("FD00::1/64", "fd00::/64"),
        ("10.0.0.0/33", None),
        ("fd00::/129", None),
        ("10.0.0.0", None),
        ("10.0.0.0/255.0.0.0", None),
        ("10.0.0.0/08", None),
        ("x/8", None),
    ],
)
def test_canonical_network(text: str, expected: str | None) -> None:
    """A CIDR has a plain prefix length, and its host bits are cleared."""
    assert canonical_network(text) == expected
    assert (parse_network(text) is None) == (expected is None)


def test_family() -> None:
    """The family of an address, and of a range, is read off its text."""
    assert family("10.0.0.1") == family("10.0.0.0/8") == 4
    assert family("fd00::1") == 6


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("0.0.0.0", "may not be unspecified (0.0.0.0)"),
        ("::", "may not be unspecified (::)"),
        ("127.1.1.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("::1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("169.254.0.1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        ("fe80::1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        ("224.0.0.9", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        ("ff02::1", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        ("239.1.1.1", "may not be a multicast address"),
        ("10.0.0.1", None),
        ("fd00::1", None),
    ],
)
def test_unusable(address: str, reason: str | None) -> None:
    """Addresses that nobody else can reach are refused in Kubernetes' words."""
    assert unusable(address) == reason
