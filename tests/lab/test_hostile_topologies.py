"""Whatever a topology file holds: refused with located lines before anything is built, or a lab that comes and goes."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from svcnat import api
from svcnat.api.labs import load_lab
from svcnat.cli.frame import main
from svcnat.errors import ManifestError
from svcnat.model.objects import Service
from tests.lab.conftest import namespaces_of, unused_name
from tests.lab.pods import ask_tcp
from tests.lab.test_agent import processes_of

HEAD = "apiVersion: svcnat.io/v1alpha1\nkind: Topology\n"
SPOILT = 500

MISTAKES = [
    # Not a topology, but meant to be one.
    ("apiVersion: svcnat.io/v1alpha1\nkind: topology\n", 2, 'kind: Unsupported value: "topology"'),
    ("apiVersion: svcnat.io/v1alpha1\nkind: Topologi\nclients: 3\n", 2, 'kind: Unsupported value: "Topologi"'),
    ("kind: Topology\nclients: 3\n", 1, "apiVersion: Required value"),
    ("apiVersion: v1\nkind: Topology\n", 1, 'apiVersion: Unsupported value: "v1"'),
    ("apiVersion: svcnat.io/v1\nkind: Topology\n", 1, 'apiVersion: Unsupported value: "svcnat.io/v1"'),
    ("apiVersion: svcnat/v1alpha1\nkind: Topology\n", 1, "apiVersion: Unsupported value"),
    ("apiVersion: svcnat.io/v1alpha1\nclients: 3\n", 1, "kind: Required value"),
    ("apiVersion: [svcnat.io/v1alpha1]\nkind: Topology\n", 1, "apiVersion: Invalid value"),
    (f"{HEAD}---\n{HEAD}", 4, "a lab has one topology"),
    # Not YAML, or more than YAML.
    (f"{HEAD}\tclients: 3\n", 3, "a tab cannot indent"),
    (f"{HEAD}clients: [\n", 3, "not YAML"),
    (f"{HEAD}clients: \0\n", 3, "U+0000"),
    (f"{HEAD}nodes: &a [*a]\n", 3, "contains itself"),
    (f"{HEAD}clients: !!python/object:os.system 3\n", 3, "is not supported"),
    (f"{HEAD}images: {'[' * 201}{']' * 201}\n", 3, "nested deeper"),
    (f"{HEAD}clients: 1\nclients: 2\n", 4, "clients"),
    # Fields that there are not.
    (f"{HEAD}metadata: {{name: x}}\n", 3, "metadata: unknown field"),
    (f"{HEAD}spec: {{clients: 2}}\n", 3, "spec: unknown field"),
    (f"{HEAD}nods: []\n", 3, 'nods: unknown field: did you mean "nodes"?'),
    (f"{HEAD}nodes:\n- name: a\n  podCIDR: 10.244.0.0/24\n", 5, "nodes[0].podCIDR: unknown field"),
    # Values of another type.
    (f"{HEAD}clients: many\n", 3, "clients: Invalid value"),
    (f"{HEAD}clients: 1.5\n", 3, "clients: Invalid value"),
    (f"{HEAD}clients: '2'\n", 3, "must be a number, or a list"),
    (f"{HEAD}clients: {10**20}\n", 3, "must be between 0 and 100"),
    (f"{HEAD}nodes: {{name: a}}\n", 3, "nodes: Invalid value"),
    (f"{HEAD}nodes: [a, b]\n", 3, "nodes[1]: Invalid value"),
    (f"{HEAD}nodes:\n-\n", 4, "nodes[0]: Invalid value"),
    (f"{HEAD}nodes: [{{name: 7}}]\n", 3, "nodes[0].name: Invalid value"),
    (f"{HEAD}nodes: [{{name: a, labels: {{zone: 7}}}}]\n", 3, "nodes[0].labels[zone]: Invalid value"),
    (f"{HEAD}nodeCIDR: [10.9.0.0/24]\n", 3, "nodeCIDR: Invalid value"),
    (f"{HEAD}images: [redis]\n", 3, "images: Invalid value"),
    (f"{HEAD}images: {{redis: 7}}\n", 3, "images[redis]: Invalid value"),
    (f"{HEAD}restartBackoffSeconds: soon\n", 3, "restartBackoffSeconds: Invalid value"),
    (f"{HEAD}restartBackoffSeconds: '3'\n", 3, "must be a number: remove the quotes"),
    (f"{HEAD}restartBackoffSeconds: true\n", 3, "restartBackoffSeconds: Invalid value"),
    (f"{HEAD}restartBackoffSeconds: .nan\n", 3, "must be a finite number"),
    # Values that make no sense.
    (f"{HEAD}restartBackoffSeconds: 0\n", 3, "must be greater than 0"),
    (f"{HEAD}clients: -1\n", 3, "must be between 0 and 100"),
    (f"{HEAD}clients: 101\n", 3, "must be between 0 and 100"),
    (f"{HEAD}clientCIDR: 192.0.2.0/28\nclients: 9\n", 4, "clients: "),
    (f"{HEAD}nodes:\n- labels: {{}}\n", 4, "nodes[0].name: Required value"),
    (f"{HEAD}nodes:\n- name: A\n", 4, "nodes[0].name: Invalid value"),
    (f"{HEAD}nodes:\n- name: {'a' * 64}\n", 4, "nodes[0].name: Invalid value"),
    (f"{HEAD}nodes:\n- name: ../../etc\n", 4, "nodes[0].name: Invalid value"),
    (f"{HEAD}nodes:\n- name: router\n", 4, "nodes[0].name: Forbidden"),
    (f"{HEAD}nodes:\n- name: client-2\n", 4, "nodes[0].name: Forbidden"),
    (f"{HEAD}nodes:\n- name: a\n- name: a\n", 5, "nodes[1].name: Duplicate value"),
    (f"{HEAD}nodes: [{{name: a, labels: {{x y: z}}}}]\n", 3, "nodes[0].labels: Invalid value"),
    (f'{HEAD}images: {{redis: "a \'b"}}\n', 3, "images[redis]: Invalid value"),
    (f"{HEAD}images: {{redis: ['']}}\n", 3, "images[redis]: Invalid value"),
    (f"{HEAD}images: {{redis: ['a', 7]}}\n", 3, "images[redis]: Invalid value"),
    # Ranges that are none, or that no network can have.
    *(
        (f"{HEAD}\n{name}: '{text}'\n", 4, f"{name}: Invalid value")
        for name in ("clusterCIDR", "serviceCIDR", "nodeCIDR", "clientCIDR", "loadBalancerCIDR")
        for text in (
            *("10.1.0.0", "10.1.0.0/33", "10.1.0/24", "010.1.0.0/24", "fd00::/129", "::ffff:10.0.0.0/120"),
            *("fd00::%eth0/64", "10.1.0.0/24,", ",", "10.1.0.0/24,10.2.0.0/24", "10.1.0.0/255.255.0.0"),
            *("127.0.0.0/16", "0.0.0.0/0", "169.254.0.0/16", "224.0.0.0/16", "::/0", "fe80::/64", "ff00::/56"),
        )
    ),
    (f"{HEAD}clients: 0\nclientCIDR: 192.0.2.0/32\n", 4, "clientCIDR: Invalid value"),
    (f"{HEAD}serviceCIDR: fd00::/127\n", 3, "must have at least 16 addresses"),
    (f"{HEAD}nodes: [{{name: a, podCIDRs: [10.244.0.0/31]}}]\n", 3, "nodes[0].podCIDRs: Invalid value"),
    (f"{HEAD}nodes: [{{name: a, podCIDRs: [10.9.0.0/24]}}]\n", 3, "must be parts of clusterCIDR"),
    # Ranges that meet: wrong is the one that the file names.
    (f"{HEAD}\nnodeCIDR: 192.0.2.0/24\n", 4, 'nodeCIDR: Invalid value: "192.0.2.0/24": overlaps'),
    (f"{HEAD}\nclusterCIDR: 10.0.0.0/8\n", 4, 'clusterCIDR: Invalid value: "10.0.0.0/8": overlaps'),
    (f"{HEAD}nodes:\n- name: a\n  podCIDRs: [10.244.1.0/24]\n- name: b\n", 5, "nodes[0].podCIDRs: Invalid value"),
    (f"{HEAD}nodes: [{','.join(f'{{name: n{each}}}' for each in range(300))}]\n", 3, "nodes[244]: "),
]

GOOD: dict[str, Any] = {
    "apiVersion": "svcnat.io/v1alpha1",
    "kind": "Topology",
    "clusterCIDR": "10.200.0.0/16,fd00:200::/56",
    "serviceCIDR": "10.97.0.0/16",
    "nodeCIDR": "172.31.0.0/24",
    "clientCIDR": "198.18.0.0/24",
    "loadBalancerCIDR": "198.51.100.128/25",
    "nodes": [
        {"name": "east", "labels": {"topology.kubernetes.io/zone": "east"}, "podCIDRs": ["10.200.7.0/24"]},
        {"name": "west", "labels": {"topology.kubernetes.io/zone": "west"}},
    ],
    "clients": 2,
    "images": {"redis": "redis-server --save ''", "busybox": ["sh", "-c", "sleep 1"]},
    "restartBackoffSeconds": 2.5,
}

Refuse = Callable[[bytes], list[str]]


@pytest.fixture(scope="module")
def refuse(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Refuse:
    """A function that builds a lab of a topology, as the command does, and returns what is wrong with that."""
    file = tmp_path_factory.mktemp("topologies") / "t.yaml"

    def up(data: bytes) -> list[str]:
        file.write_bytes(data)
        name = unused_name()
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            assert main(["lab", "up", name, "-f", str(file)]) == 1, data
        assert namespaces_of(name) == []
        labs = runtime / "labs"
        assert not labs.exists() or list(labs.iterdir()) == []
        lines = said.getvalue().splitlines()
        place = f"error: {file}:"
        found = [line.removeprefix(place) for line in lines if line.startswith(place)]
        assert found, lines
        assert all(line.isprintable() and line.partition(":")[0].isdecimal() for line in found), lines
        assert not [line for line in lines if "Traceback" in line]
        return found

    return up


@pytest.mark.parametrize(("text", "line", "what"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes(refuse: Refuse, text: str, line: int, what: str) -> None:
    """Each is told with its line and field, and no lab is there."""
    found = refuse(text.encode())
    assert any(each.startswith(f"{line}:") and what in each for each in found), found


# --- five hundred spoilt topologies --------------------------------------------------------------------------


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a document below its kind."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [found for key, item in inner for found in ((*path, key), *places(item, (*path, key)))]


def put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value


def wrong_type(rng: random.Random, document: dict[str, Any]) -> str:
    """A value that cannot stand there, whatever there is."""
    path = rng.choice(places(document))
    value: Any = document
    for step in path:
        value = value[step]
    others: list[Any] = [True, [[7]], {"a": {"b": 7}}, 1.25]
    if isinstance(value, float):
        others = ["text", True, [], {}, -1, 10**30]
    elif isinstance(value, int):
        others = ["text", True, [], {}, 1.25, -7, 10**30]
    elif path[0] == "images" and len(path) == 2:
        others = [7, True, {"a": "b"}, ["a", 7], [""], "'"]
    put(document, path, rng.choice(others))
    return yaml.safe_dump(document)


def unknown_field(rng: random.Random, document: dict[str, Any]) -> str:
    """A field that there is not."""
    where = rng.choice([document, *document["nodes"]])
    where[rng.choice(["x", "spec", "node", "Clients", "", "a b", "name ", "ü", "kind "])] = rng.choice(
        [None, 1, {}, "x"]
    )
    return yaml.safe_dump(document, allow_unicode=True)


def bad_range(rng: random.Random, document: dict[str, Any]) -> str:
    """No range, or one that overlaps another, or that is too small."""
    fields = [key for key in document if key.endswith("CIDR")]
    field, other = rng.sample(fields, 2)
    taken = document[other].split(",")[0]
    document[field] = rng.choice(
        [taken, "0.0.0.0/0", "::/0", "ff02::/64", "10.0.0.0", "x", " ", "/", "1.2.3.4/", "10.0.0.0/-1", "10.0.0.0/1e1"]
        + (["203.0.113.0/31", "fd09::/127"] if field != "loadBalancerCIDR" else [])
    )
    return yaml.safe_dump(document)


def bad_nodes(rng: random.Random, document: dict[str, Any]) -> str:
    """A name that no node can have, a name twice, a label that is none, too many."""
    node = rng.choice(document["nodes"])
    names = ["A", "a.b", "a_b", "-a", "a-", "a" * 64, "", "ü", "a\nb", "a b", "..", "/", "router", "client", "client-9"]
    match rng.randrange(4):
        case 0:
            node["name"] = rng.choice(names)
        case 1:
            document["nodes"].append(dict(node, podCIDRs=[]))
        case 2:
            node["labels"] = {rng.choice(["", "-", "a b", "a/b/c", "a" * 64]): "x", "y": "z w"}
        case _:
            document["nodes"] += [{"name": f"n{each}"} for each in range(rng.randrange(255, 400))]
    return yaml.safe_dump(document)


def bad_kind(rng: random.Random, document: dict[str, Any]) -> str:
    """Another version, none, or another kind of ours."""
    if rng.random() < 0.5:
        document["apiVersion"] = rng.choice(
            ["svcnat.io/v2", "svcnat.io", "v1", "", None, 1, ["x"], "svcnat.io/v1alpha1 "]
        )
    else:
        document["kind"] = rng.choice(["topology", "Topologies", "", None, 1, {}, "Topology "])
    return yaml.safe_dump(document)


def syntax(rng: random.Random, document: dict[str, Any]) -> str:
    """Text that is not YAML at some line."""
    lines = yaml.safe_dump(document).splitlines()
    at = rng.randrange(len(lines))
    lines[at] = rng.choice(["\t", "@", "'", "*", "}", "%x: [", "a: b: c: ", "\x07", "\x00"]) + lines[at]
    lines.append("end: [")
    return "\n".join(lines)


def duplicate(rng: random.Random, document: dict[str, Any]) -> str:
    """A key that stands twice, or two topologies."""
    text = yaml.safe_dump(document)
    keys = [line.split(":")[0] for line in text.splitlines() if line[:1].isalpha()]
    return rng.choice([f"{text}\n{rng.choice(keys)}: 7\n", f"{text}\n---\n{text}"])


def cut(rng: random.Random, document: dict[str, Any]) -> str:
    """JSON that ends too early."""
    text = json.dumps(document, indent=rng.choice([None, 1]))
    return text[: rng.randrange(2, len(text) - 1)]


def flattened(_rng: random.Random, document: dict[str, Any]) -> str:
    """All indentation lost."""
    return "\n".join(line.lstrip() for line in yaml.safe_dump(document, sort_keys=False).splitlines())


SPOILS = (wrong_type, wrong_type, unknown_field, bad_range, bad_range, bad_nodes, bad_kind, syntax, duplicate, cut)


def spoilt(seed: int) -> str:
    """A topology with a mistake, the same for the same seed."""
    rng = random.Random(seed)
    return rng.choice((*SPOILS, flattened))(rng, copy.deepcopy(GOOD))


@pytest.mark.parametrize("batch", range(5))
def test_five_hundred_spoilt_topologies(refuse: Refuse, batch: int) -> None:
    """Each is refused by the command, with located lines and nothing else, and nothing is left of it."""
    for seed in range(batch * SPOILT // 5, (batch + 1) * SPOILT // 5):
        text = spoilt(seed)
        assert refuse(text.encode()), text


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 141, 271, 499])
def test_the_command_itself(runtime: Path, tmp_path: Path, seed: int) -> None:
    """As a process of its own: exit code 1, no traceback, and neither process, namespace nor file afterwards."""
    file, name = tmp_path / "t.yaml", unused_name()
    file.write_text(spoilt(seed))
    words = [sys.executable, "-m", "svcnat", "lab", "up", name, "-f", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {file}:")
    assert "Traceback" not in done.stderr
    assert (namespaces_of(name), processes_of(name)) == ([], [])
    assert not (runtime / "labs" / name).exists()


# --- anything at all -----------------------------------------------------------------------------------------

TEXT = yaml.safe_dump(GOOD, sort_keys=False)
SIGNS = "- |: |{|}|[|]|&a |*a|<<: |!!int |? |'|\"|#|\t|\\|\r\n|\u2028|ü|~|0x|1e9|-| |---\n|\n|\ud83d"
WORDS = "null|10.0.0.0/8|::/0|nodes:\n|kind: List\n|items:\n"
PIECES = st.sampled_from([*SIGNS.split("|"), *WORDS.split("|")])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def judge(file: Path, data: bytes) -> None:
    """Loading returns, or raises ManifestError with located lines; anything else escapes and fails the test."""
    file.write_bytes(data)
    found = []
    try:
        load_lab(file)
    except ManifestError as error:
        found = error.findings
    assert all(each.line >= 1 and str(each).isprintable() for each in found)


@pytest.fixture(scope="module")
def somewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "t.yaml"


@settings(max_examples=200, derandomize=True)
@given(st.integers(0, len(TEXT)), st.integers(0, 20), st.lists(PIECES, max_size=3).map("".join))
def test_any_edit(somewhere: Path, position: int, length: int, pieces: str) -> None:
    """A good topology with a piece replaced by another."""
    judge(somewhere, (TEXT[:position] + pieces + TEXT[position + length :]).encode(errors="surrogatepass"))


@settings(max_examples=200, derandomize=True)
@given(st.sampled_from(places(GOOD)), VALUES)
@example(("nodes",), [[]])
@example(("images",), {"": []})
def test_any_value_anywhere(somewhere: Path, path: tuple[Any, ...], value: Any) -> None:
    """Any JSON value at any place."""
    document = copy.deepcopy(GOOD)
    put(document, path, value)
    judge(somewhere, json.dumps(document).encode())


# --- and good ones -------------------------------------------------------------------------------------------


def good(seed: int) -> dict[str, Any]:
    """A random topology without a mistake: nodes and ranges of any size, from anywhere."""
    rng = random.Random(seed)
    nodes = rng.randrange(1, 5)
    spaces = rng.sample(["10.7.0.0", "10.200.0.0", "172.20.0.0", "192.168.0.0", "198.18.0.0", "100.64.0.0"], 5)
    names = ("clusterCIDR", "serviceCIDR", "nodeCIDR", "clientCIDR", "loadBalancerCIDR")
    sizes = ((18, 21), (16, 28), (20, 27), (20, 27), (16, 32))
    ranges = {
        name: f"{space}/{rng.randint(*size)},fd{index:02x}::/{rng.choice([56, 60]) if not index else 112}"
        for index, (name, space, size) in enumerate(zip(names, spaces, sizes, strict=True))
    }
    chosen = rng.sample(names, rng.randrange(6))
    return {
        "apiVersion": "svcnat.io/v1alpha1",
        "kind": "Topology",
        "nodes": [{"name": f"n{each}", "labels": {"zone": rng.choice("ab")}} for each in range(nodes)],
        "clients": rng.randrange(3),
        "images": {"x": rng.choice(["", [], "no-such-program"])},
        **{name: ranges[name] for name in names if name in chosen},
    }


@pytest.mark.packets
@pytest.mark.parametrize("seed", range(4))
def test_random_good_topologies(runtime: Path, tmp_path: Path, seed: int) -> None:
    """Each is built, runs a pod on every node that others reach, and goes without a trace."""
    document, name, file = good(seed), unused_name(), tmp_path / "t.yaml"
    nodes = [node["name"] for node in document["nodes"]]
    pods = "".join(
        f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: on-{node}, labels: {{app: web}}}}\n"
        f"spec: {{nodeName: {node}, containers: [{{name: c, image: web, ports: [{{containerPort: 80}}]}}]}}\n"
        for node in nodes
    )
    web = (
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n"
    )
    file.write_text(yaml.safe_dump(document) + pods + web)
    lab = api.Lab.up(name, file)
    try:
        with lab.read() as snapshot:
            service = snapshot.get(Service, "default", "web")
        assert service is not None
        address = str(service.spec.cluster_ip)
        found = {lab.run(f"on-{nodes[0]}", lambda: ask_tcp(address)).split()[0] for _ in range(60)}
        assert found == {f"on-{node}" for node in nodes}
    finally:
        lab.down()
    assert (namespaces_of(name), processes_of(name)) == ([], [])
    assert not (runtime / "labs" / name).exists()
