"""The configuration file, and what follows from it whether or not there are rules to make."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from svcnat.errors import UsageError
from svcnat.model.configuration import Configuration, parse_configuration
from svcnat.store.folder import read_sources
from svcnat.store.sqlite import Store

DEFAULT_CONFIG = "/etc/svcnat/config.yaml"
DEFAULT_STATE = "/var/lib/svcnat/state.db"
LAB_BRINGS_ITS_OWN = (
    "--lab comes with its own state file, configuration and network namespaces: leave out --state, --config and --netns"
)


def configuration(path: str | Path | None = None) -> Configuration:
    """Read the configuration file; without a path, the default one, which need not exist.

    Raises:
        ManifestError: the file cannot be read, or what is in it is wrong.

    """
    if path is None and not os.path.lexists(DEFAULT_CONFIG):
        return Configuration()
    sources = read_sources([str(path or DEFAULT_CONFIG)])
    if len(sources) != 1:
        raise UsageError(f"--config takes one file; {path} is a folder")
    source, data = sources[0]
    return parse_configuration(data, source)


def node_name(config: Configuration, node: str | None = None) -> str:
    """The node's name: the one given, the configuration's, or the host's."""
    return node or config.hostname_override or socket.gethostname().lower()


def service_ranges(config: Configuration) -> tuple[str, ...]:
    """Where cluster IPs come from."""
    return tuple(map(str, config.service_networks))


def open_store(path: str | Path, config: Configuration, *, create: bool = True) -> Store:
    """Open a state file with the ranges that a configuration has.

    Raises:
        StoreError: it cannot be used.

    """
    return Store.open(
        path,
        create=create,
        service_cidrs=service_ranges(config),
        node_ports=config.node_ports,
        load_balancer_pool=config.load_balancer_pool,
    )
