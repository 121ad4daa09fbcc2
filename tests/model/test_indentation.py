"""Lost indentation is named at its line, with what was probably meant."""

from __future__ import annotations

import itertools

import pytest

from svcnat.model.indentation import diagnose
from tests.model.build import COURSE, DEPLOYMENT, ENDPOINTS, POD, SLICE, dedent, errors, loaded

FLAT = "".join(f"{line.lstrip()}\n" for line in COURSE.splitlines())

NAME = "4: metadata.name: `name` belongs under `metadata`: indent it by two spaces"


def test_everything_flattened() -> None:
    """The course's example flush left parses, with `type` twice; what is said is where every line belongs."""
    assert errors(FLAT) == [
        NAME,
        "6: spec.type: `type` belongs under `spec`: indent it by two spaces",
        "7: spec.ports: `ports` belongs under `spec`: indent it by two spaces",
        "9: spec.ports[0].port: `port` belongs to the item of `ports` that begins on line 8: indent it by four spaces",
        "10: spec.selector: `selector` belongs under `spec`: indent it by two spaces",
        "11: spec.selector[app]: `app` belongs under `selector`: indent it by four spaces",
        "12: spec.selector[type]: `type` belongs under `selector`: indent it by four spaces",
    ]


def test_name_beside_metadata() -> None:
    """`name:` beside `metadata:`, which YAML rejects where the indentation comes back."""
    labelled = COURSE.replace("  name: back-end\n", "name: back-end\n  labels: {app: myapp}\n")
    assert errors(labelled) == [NAME]
    assert errors(COURSE.replace("  name:", "name:")) == [NAME]


def test_nothing_else_is_hidden() -> None:
    """The rest of the document is judged as it was meant, with the lines it has."""
    assert errors(FLAT.replace("\nport: 80", "\nport: 70000").replace("back-end\nspec", "Back-end\nspec"))[-2:] == [
        next(text for text in errors(COURSE.replace("name: back-end", "name: Back-end"))),
        "9: spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "      port: 80",
            "  port: 80",
            ["9: spec.ports[0].port: `port` belongs to the item of `ports` that begins on line 8: "
             "indent it by four spaces"],
        ),
        (
            "      port: 80",
            "     port: 80",
            ["9: spec.ports[0].port: `port` belongs to the item of `ports` that begins on line 8: "
             "indent it by one space"],
        ),
        (
            "      port: 80",
            "        port: 80",
            ["9: spec.ports[0].port: `port` belongs to the item of `ports` that begins on line 8: "
             "indent it by two spaces less"],
        ),
        (
            "    - targetPort",
            "- targetPort",
            ["8: spec.ports[0]: `- targetPort` belongs under `ports`: indent it by four spaces"],
        ),
        (
            "  ports:\n    - targetPort: 80\n      port: 80",
            "ports:\n    - targetPort: 80\n      port: 80",
            ["7: spec.ports: `ports` belongs under `spec`: indent it by two spaces"],
        ),
        (
            "  ports:\n    - targetPort: 80\n      port: 80",
            "ports:\n  - targetPort: 80\n    port: 80",
            ["7: spec.ports: `ports` belongs under `spec`: indent it by two spaces"],
        ),
        ("spec:", "  spec:", ["5: spec: `spec` belongs at the top level: indent it by two spaces less"]),
        ("kind:", " kind:", ["2: kind: `kind` belongs at the top level: indent it by one space less"]),
        ("  type: Cl", "type: Cl", ["6: spec.type: `type` belongs under `spec`: indent it by two spaces"]),
        ("  type: Cl", "   type: Cl", [
            "7: spec.ports: `ports` belongs under `spec`: indent it by one space",
            "10: spec.selector: `selector` belongs under `spec`: indent it by one space",
        ]),
        ("  selector:", "selector:", ["10: spec.selector: `selector` belongs under `spec`: indent it by two spaces"]),
        ("  selector:", "    selector:", [
            "10: spec.selector: `selector` belongs under `spec`: indent it by two spaces less",
        ]),
        ("    app: myapp\n    type: b", "  app: myapp\n  type: b", [
            "11: spec.selector[app]: `app` belongs under `selector`: indent it by two spaces",
            "12: spec.selector[type]: `type` belongs under `selector`: indent it by two spaces",
        ]),
        ("    type: b", "  type: b", [
            "12: spec.selector[type]: `type` belongs under `selector`: indent it by two spaces",
        ]),
        ("    app: myapp\n    type: back-end", "app: myapp", [
            "11: spec.selector[app]: `app` belongs under `selector`: indent it by four spaces",
        ]),
        ("metadata:\n  name", "metadata: name", [
            "3: metadata.name: `name` belongs on a line of its own under `metadata`, indented by two spaces",
        ]),
        ("  name: back-end", "  name:back-end", ["4: metadata.name: a space is missing after `name:`"]),
        ("  ports:", "  ports", ["7: spec.ports: a colon is missing after `ports`"]),
        ("metadata:", "metadata", ["3: metadata: a colon is missing after `metadata`"]),
    ],
)  # fmt: skip
def test_partly_lost(old: str, new: str, expected: list[str]) -> None:
    """Each way in which people lose a part of it has its own explanation, and only that."""
    assert old in COURSE
    assert errors(COURSE.replace(old, new)) == expected


@pytest.mark.parametrize("text", [COURSE, DEPLOYMENT, SLICE, ENDPOINTS, POD])
def test_sound_indentation_is_left_alone(text: str) -> None:
    """What is right has no diagnosis, and is not moved."""
    diagnosis = diagnose(text, 1)
    assert diagnosis.misplaced == ()
    assert diagnosis.text == text


@pytest.mark.parametrize("text", [COURSE, SLICE, DEPLOYMENT])
def test_any_line_may_lose_it(text: str) -> None:
    """Whichever line is moved to the left edge, there is a finding; it names that line or the one that gave way."""
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if not line.startswith(" "):
            continue
        moved = "\n".join([*lines[:index], line.lstrip(), *lines[index + 1 :]])
        found = errors(moved) or [f"{each.line}: warning" for each in loaded(moved).warnings]
        if line.lstrip() not in ("- name: web",):
            assert found, moved
            assert abs(int(found[0].split(":")[0]) - index - 1) <= 1, (moved, found)


def test_any_part_may_lose_it() -> None:
    """From any line to any other flush left: every finding is located, and the first is not below the damage."""
    lines = COURSE.splitlines()
    for first, last in itertools.combinations(range(2, len(lines) + 1), 2):
        moved = [*lines[:first], *(line.lstrip() for line in lines[first:last]), *lines[last:]]
        if moved == lines:
            continue
        found = errors("\n".join(moved))
        assert found, moved
        assert all(int(text.split(":")[0]) > first for text in found), (moved, found)
        assert "not YAML" not in found[0], moved


def test_a_deployment_flattened() -> None:
    """`metadata` and `spec` stand twice in a Deployment: the second pair is the template's."""
    flat = "".join(
        f"{line.lstrip()}\n"
        for line in dedent("""
        apiVersion: apps/v1
        kind: Deployment
        metadata:
          name: web
          labels:
            app: web
        spec:
          replicas: 3
          selector:
            matchLabels:
              app: web
          template:
            metadata:
              labels:
                app: web
            spec:
              containers:
              - name: web
                image: nginx
                command: [sleep,
                  infinity]
                args:
                - "--x"
                - z
                ports:
                - containerPort: 80
    """).splitlines()
    )
    found = errors(flat)
    assert [text.split(": ")[:2] for text in found] == [
        ["4", "metadata.name"],
        ["5", "metadata.labels"],
        ["6", "metadata.labels[app]"],
        ["8", "spec.replicas"],
        ["9", "spec.selector"],
        ["10", "spec.selector.matchLabels"],
        ["11", "spec.selector.matchLabels[app]"],
        ["12", "spec.template"],
        ["13", "spec.template.metadata"],
        ["14", "spec.template.metadata.labels"],
        ["15", "spec.template.metadata.labels[app]"],
        ["16", "spec.template.spec"],
        ["17", "spec.template.spec.containers"],
        ["19", "spec.template.spec.containers[0].image"],
        ["20", "spec.template.spec.containers[0].command"],
        ["22", "spec.template.spec.containers[0].args"],
        ["25", "spec.template.spec.containers[0].ports"],
    ]


def test_an_objects_own_field_is_no_label() -> None:
    """After the labels, `namespace` is the object's own; a value that labels cannot have is theirs never."""
    text = FLAT.replace("name: back-end\n", "name: back-end\nlabels:\napp: x\nnamespace: shop\ngeneration: 3\n")
    assert [each.split(": ")[1] for each in errors(text)][:5] == [
        "metadata.name",
        "metadata.labels",
        "metadata.labels[app]",
        "metadata.namespace",
        "metadata.generation",
    ]


def test_a_slice_flattened() -> None:
    """Lists of text: the addresses of an endpoint."""
    flat = "".join(
        f"{line.lstrip()}\n"
        for line in dedent("""
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata:
          name: a
        addressType: IPv4
        ports:
        - name: http
          port: 80
        endpoints:
        - addresses:
            - 10.0.0.1
            - 10.0.0.2
          conditions:
            ready: true
    """).splitlines()
    )
    assert errors(flat) == [
        NAME,
        "8: ports[0].port: `port` belongs to the item of `ports` that begins on line 7: indent it by two spaces",
        "11: endpoints[0].addresses[0]: `- 10.0.0.1` belongs under `addresses`: indent it by four spaces",
        "12: endpoints[0].addresses[1]: `- 10.0.0.2` belongs under `addresses`: indent it by four spaces",
        "13: endpoints[0].conditions: `conditions` belongs to the item of `endpoints` that begins on line 10: "
        "indent it by two spaces",
        "14: endpoints[0].conditions.ready: `ready` belongs under `conditions`: indent it by four spaces",
    ]


def test_a_field_too_deep_is_a_warning_in_a_sound_object() -> None:
    """What a cluster would accept with a warning is accepted here, and explained; strict refuses it."""
    text = DEPLOYMENT + "        terminationGracePeriodSeconds: 5\n"
    reason = "`terminationGracePeriodSeconds` belongs under `spec`: indent it by two spaces less"
    (warning,) = loaded(text).warnings
    assert (warning.line, warning.field) == (16, "spec.template.spec.terminationGracePeriodSeconds")
    assert warning.reason == f"unknown field, ignored: {reason}"
    assert errors(text, strict=True) == [f"16: spec.template.spec.terminationGracePeriodSeconds: {reason}"]


def test_an_empty_parent_is_an_error() -> None:
    """Labels beside `labels:` would silently be lost."""
    text = COURSE.replace("  name: back-end\n", "  name: back-end\n  labels:\n  tier: back\n")
    assert errors(text) == ["6: metadata.labels[tier]: `tier` belongs under `labels`: indent it by two spaces"]


def test_other_documents_of_the_file() -> None:
    """Only the damaged document is explained; lines count through the file."""
    found = errors(f"{COURSE}---\n{FLAT.replace('back-end', 'other', 1)}")
    assert found[0] == "17: metadata.name: `name` belongs under `metadata`: indent it by two spaces"


def test_unknown_fields_keep_what_they_hold() -> None:
    """Below a field nobody knows, nothing is misplaced."""
    text = COURSE.replace("spec:\n", "spec:\n  zzz:\n    name: x\n    list:\n    - name: y\n      type: z\n")
    (warning,) = loaded(text).warnings
    assert warning.reason == "unknown field, ignored"
    kept = COURSE.replace("  name:", "  managedFields:\n  - ports:\n    type: x\n  name:")
    assert loaded(kept, strict=True).warnings == ()
    assert errors(
        kept.replace("  - ports:\n    type: x\n", "  - ports:\n").replace("    - targetPort", "- targetPort")
    ) == ["10: spec.ports[0]: `- targetPort` belongs under `ports`: indent it by four spaces"]


def test_block_text_comments_and_flow_are_passed_over() -> None:
    """Only real keys are looked at."""
    text = dedent("""
        # kind: Pod
        apiVersion: v1
        kind: "Service"   # kind: Pod
        metadata:
        name: a   # name: b
          annotations:
            text: |
              spec:
               - name: x

              metadata:
            more: {a.b/c: "x",
        name: y}
        spec:
          ports:
          -
            port: 80
          # port: 81
          'selector': {app: x}
    """)
    diagnosis = diagnose(text, 1)
    assert [(each.line, each.field) for each in diagnosis.misplaced] == [(5, "metadata.name")]


def test_a_field_behind_its_parent() -> None:
    """The rest is judged where it can be read; what hangs below the line cannot."""
    text = COURSE.replace("metadata:\n  name", "metadata: name")
    assert [each.split(":")[0] for each in errors(text.replace("  port: 80", "  port: 0"))] == ["3", "8"]
    assert [each.split(":")[0] for each in errors(text.replace("spec:", "  labels: {}\nspec:"))] == ["3", "4"]


def test_no_diagnosis_without_a_known_kind() -> None:
    """What is no object of ours is not explained."""
    for text in ("a: 1\n", "kind: Job\nname: x\n", "kind: List\nitems: []\n"):
        assert diagnose(text, 1).misplaced == ()
        assert diagnose(text, 1).text == text


def test_a_wrong_explanation_is_not_given() -> None:
    """When moving lines makes nothing better, the plain findings stand."""
    assert errors(COURSE.replace("app: myapp", "app: [myapp")) == ["12: : not YAML: a comma or a closing ] is missing"]
    assert errors(FLAT + "x: @y\n")[0] == NAME
    assert errors(FLAT + "x: @y\n")[-1] == '13: : not YAML: a value cannot begin with "@"; put the value in quotes'
    two = COURSE.replace("  name: back-end", "name: back-end").replace("app: myapp", "app: [myapp")
    assert errors(two.replace("\nname: back-end\n", "\nname: back-end\n  labels: {}\n")) == [
        NAME,
        "13: : not YAML: a comma or a closing ] is missing",
    ]
    assert errors(COURSE.replace("  ports:\n", "  ports:\n- nonsense: 1\n"))[0].startswith("8: ")
    assert errors(COURSE + "- loose\n")[0].startswith("13: ")
    assert errors(COURSE + "loose\n")[0].startswith("13: ")
