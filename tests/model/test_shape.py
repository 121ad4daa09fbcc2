"""Types and field names are checked all at once, before meaning is."""

import json

import pytest

from svcnat.errors import ManifestError
from svcnat.model.manifests import load
from tests.model.build import COURSE, DEPLOYMENT, errors, loaded, one, service

QUOTES = "must be text, not what YAML reads here: put it in quotes"
OBJECT = "must be an object, `key: value` lines indented below it"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ('{ports: [{port: "80"}]}', 'spec.ports[0].port: Invalid value: "80": must be a number: remove the quotes'),
        ("{ports: [{port: http}]}", 'spec.ports[0].port: Invalid value: "http": must be a whole number'),
        ("{ports: [{port: 80.5}]}", "spec.ports[0].port: Invalid value: 80.5: must be a whole number"),
        ("{ports: [{port: true}]}", "spec.ports[0].port: Invalid value: true: must be a whole number"),
        ("{ports: [{port: [80]}]}", "spec.ports[0].port: Invalid value: [80]: must be a whole number"),
        (
            "{ports: [{port: 99999999999999999999}]}",
            "spec.ports[0].port: Invalid value: 99999999999999999999: must fit in 64 bits",
        ),
        (
            "{ports: [{port: 80, targetPort: {}}]}",
            "spec.ports[0].targetPort: Invalid value: {}: must be a whole number",
        ),
        ("{ports: [80]}", f"spec.ports[0]: Invalid value: 80: {OBJECT}"),
        ("{ports: [null]}", f"spec.ports[0]: Invalid value: null: {OBJECT}"),
        (
            "{ports: {port: 80}}",
            'spec.ports: Invalid value: {"port":80}: must be a list, each item beginning with `- `',
        ),
        ("[]", f"spec: Invalid value: []: {OBJECT}"),
        ("{ports: [{port: 80}], selector: app}", f'spec.selector: Invalid value: "app": {OBJECT}'),
        ("{ports: [{port: 80}], selector: {app: 1}}", f"spec.selector[app]: Invalid value: 1: {QUOTES}"),
        ("{ports: [{port: 80}], selector: {app: [x]}}", 'spec.selector[app]: Invalid value: ["x"]: must be text'),
        ("{ports: [{port: 80}], type: on}", f"spec.type: Invalid value: true: {QUOTES}"),
        (
            '{ports: [{port: 80}], publishNotReadyAddresses: "yes"}',
            'spec.publishNotReadyAddresses: Invalid value: "yes": must be true or false, without quotes',
        ),
        ("{ports: [{port: 80}], externalIPs: [1.2]}", f"spec.externalIPs[0]: Invalid value: 1.2: {QUOTES}"),
    ],
)
def test_wrong_types(spec: str, expected: str) -> None:
    """Each is reported once, with its path: what validation would add about the same field is no news."""
    assert errors(service(spec)) == [f"4: {expected}"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("spec.readinessGates[0].conditionType", 5),
        ("status.containerStatuses[0].restartCount", "many"),
        ("status.containerStatuses[0].ready", "yes"),
        ("status.containerStatuses[0].state", "gone"),
        ("status.containerStatuses[0].state.waiting", []),
        ("status.containerStatuses[0].state.waiting.reason", {}),
    ],
)
def test_what_is_shown_has_its_type(field: str, value: object) -> None:
    """What the tables print of a Pod is checked when it is read: one bad Pod would spoil the listing of all."""
    nested: object = value
    for step in reversed(field.replace("[0]", ".0").split(".")):
        nested = [nested] if step == "0" else {step: nested}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}
    pod = {**pod, **nested, "spec": {**pod["spec"], **nested.get("spec", {})}}
    assert any(field in each for each in errors(json.dumps(pod)))


def test_an_unknown_field_is_told_beside_the_errors_that_it_causes() -> None:
    """A slip in a required field's name: that it is missing is only half of the story."""
    assert errors(service("{prots: [{port: 80}]}")) == [
        "4: spec.ports: Required value",
        '4: spec.prots: unknown field, ignored: did you mean "ports"?',
    ]


def test_all_at_once() -> None:
    """Wrong types and wrong meanings of one document come together, in one go."""
    found = errors(service('{ports: [{port: "80"}, {port: 70000}], selector: {app: 1, "-": x}, type: Clusterip}'))
    assert [text.split(": ")[1] for text in found] == [
        "spec.ports[0].port",
        "spec.selector[app]",
        "spec.type",
        "spec.ports[0].name",
        "spec.ports[1].port",
        "spec.ports[1].name",
        "spec.selector",
    ]


def test_nulls_are_absent() -> None:
    """An empty value is no value, in structures, maps and names."""
    manifest = one(service("{ports: [{port: 80, targetPort: }], type: ~, selector: {app: null}}"))
    assert manifest.document["spec"] == {"ports": [{"port": 80}], "selector": {}}


def test_whole_numbers_are_integers() -> None:
    """80.0 is 80, as it is in JSON."""
    assert one(service("{ports: [{port: 80.0}]}")).document["spec"]["ports"] == [{"port": 80}]


def test_unknown_fields_warn() -> None:
    """An unknown field is dropped with a warning that says what was probably meant."""
    text = service('{ports: [{port: 80, targetport: 80}], selctor: {}, "x\\ny": 1, ' + "z" * 70 + ": 1}")
    result = loaded(text)
    assert [f"{each.field}: {each.reason}" for each in result.warnings] == [
        'spec.ports[0].targetport: unknown field, ignored: did you mean "targetPort"?',
        'spec.selctor: unknown field, ignored: did you mean "selector"?',
        'spec."x\\ny": unknown field, ignored',
        f"spec.{'z' * 70}: unknown field, ignored",
    ]
    assert result.manifests[0].document["spec"] == {"ports": [{"port": 80}]}


def test_unknown_fields_are_errors_when_strict() -> None:
    """--validate=strict refuses them."""
    assert errors(service("{ports: [{port: 80}], selctor: {}}"), strict=True) == [
        '4: spec.selctor: unknown field: did you mean "selector"?'
    ]


def test_suggestions_end() -> None:
    """A document full of unknown fields is not compared for minutes."""
    text = service("{ports: [{port: 80}], " + ", ".join(f"selecto{n}: 1" for n in range(300)) + "}")
    reasons = [each.reason for each in loaded(text).warnings]
    assert len(reasons) == 300
    assert reasons[0] != reasons[-1] == "unknown field, ignored"


def test_what_svcnat_does_not_use_is_kept() -> None:
    """Fields of no use here survive a round trip, unless JSON could not hold them."""
    probe = "        livenessProbe: {httpGet: {port: 80}, x: [1, {z: null}]}\n"
    manifest = one(DEPLOYMENT.replace("        ports:", f"{probe}        ports:"))
    container = manifest.document["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"] == {"httpGet": {"port": 80}, "x": [1, {"z": None}]}
    assert type(container["livenessProbe"]) is dict
    path = "spec.template.spec.containers[0].livenessProbe"
    found = errors(DEPLOYMENT.replace("        ports:", "        livenessProbe: {a: [.nan], b: .inf}\n        ports:"))
    assert found == [
        f'13: {path}[a][0]: Invalid value: "nan": must be a finite number',
        f'13: {path}[b]: Invalid value: "inf": must be a finite number',
    ]


def test_the_document_is_what_was_written() -> None:
    """No defaults in it, but the namespace; its containers are nobody else's."""
    document = one(COURSE).document
    assert document["metadata"] == {"name": "back-end", "namespace": "default"}
    assert document["spec"]["ports"] == [{"targetPort": 80, "port": 80}]
    assert list(document) == ["apiVersion", "kind", "metadata", "spec"]
    with pytest.raises(ManifestError, match=r"^a\.yml:1: a manifest is an object"):
        load([("a.yml", b"- 1")])
