"""What a Pod must keep in the fields that its ``/etc/resolv.conf`` and ``/etc/hosts`` are made of.

Source: core/v1 validatePodDNSConfig and ValidateHostAliases; that options are one word each is our own rule, since they
are written as words.
"""

from __future__ import annotations

from collections.abc import Iterator

from svcnat.model.objects import PodDNSConfig, PodSpec
from svcnat.model.validation.addresses import check_address
from svcnat.model.validation.names import check, dns_subdomain
from svcnat.model.validation.problems import Problem, invalid, required

_MOST_NAMESERVERS = 3
_MOST_SEARCHES = 32
_MOST_CHARACTERS = 2048
_OWN = "None"


def check_resolving(spec: PodSpec, path: str) -> list[Problem]:
    """Return the problems of a Pod's ``dnsConfig`` and ``hostAliases``."""
    problems = []
    at, config = f"{path}.dnsConfig", spec.dns_config
    if spec.dns_policy == _OWN and config is None:
        problems.append(required(at, "must provide `dnsConfig` when `dnsPolicy` is None"))
    elif spec.dns_policy == _OWN and config and not config.nameservers:
        text = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        problems.append(required(f"{at}.nameservers", text))
    problems += _check_config(config, at) if config else []
    for index, alias in enumerate(spec.host_aliases):
        problems += check_address(f"{path}.hostAliases[{index}].ip", alias.ip)
        for number, name in enumerate(alias.hostnames):
            problems += check(f"{path}.hostAliases[{index}].hostnames[{number}]", name, dns_subdomain)
    return problems


def _check_config(config: PodDNSConfig, path: str) -> Iterator[Problem]:
    if len(config.nameservers) > _MOST_NAMESERVERS:
        text = f"must not have more than {_MOST_NAMESERVERS} nameservers"
        yield invalid(f"{path}.nameservers", config.nameservers, text)
    for index, address in enumerate(config.nameservers):
        yield from check_address(f"{path}.nameservers[{index}]", address)
    if len(config.searches) > _MOST_SEARCHES:
        yield invalid(f"{path}.searches", config.searches, f"must not have more than {_MOST_SEARCHES} search paths")
    if len(" ".join(config.searches)) > _MOST_CHARACTERS:
        text = f"must not have more than {_MOST_CHARACTERS} characters (including spaces) in the search list"
        yield invalid(f"{path}.searches", config.searches, text)
    for index, search in enumerate(config.searches):
        # A dot stands for the root: nothing is searched.
        yield from check(f"{path}.searches[{index}]", search.removesuffix("."), dns_subdomain) if search != "." else ()
    for index, option in enumerate(config.options):
        if not option.name:
            yield required(f"{path}.options[{index}]", "must not be empty")
        for word in filter(None, (option.name, option.value)):
            if len(word.split()) != 1 or word != word.strip():
                yield invalid(f"{path}.options[{index}]", word, "must not contain white space")
