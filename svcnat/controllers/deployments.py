"""Deployments to Pods: as many as ``replicas`` says, made from the template; ReplicaSets are left out.

A changed template is rolled out: Pods of the new one are made at once, ready Pods of the old one stay until as many
new ones are ready (strategy Recreate: they go first). It starts no Pod and gives none an address: in a lab the kubelet
does. Pods that merely match the selector are not adopted. Source: apps/v1 Deployment and the ReplicaSet controller.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec.structs import replace

from svcnat.controllers.naming import fresh_name, safe_text
from svcnat.controllers.world import Change, World
from svcnat.model.defaults import with_defaults
from svcnat.model.objects import Deployment, DeploymentStatus, ObjectMeta, OwnerReference, Pod, PodTemplateSpec
from svcnat.model.pods import has_ended, is_ready

HASH_LABEL = "pod-template-hash"


def reconcile(world: World, namespace: str, name: str) -> list[Change]:
    """Make the Pods of a Deployment what it asks for, update its status, and return what changed among Pods."""
    deployment = world.get(Deployment, namespace, name)
    if deployment is None:
        return []
    wanted = deployment.spec.replicas if deployment.spec.replicas is not None else 1
    revision = template_hash(deployment.spec.template)
    pods = [each for each in world.owned(deployment.metadata.uid) if isinstance(each, Pod) and _is_active(each)]
    current = sorted((pod for pod in pods if pod.metadata.labels.get(HASH_LABEL) == revision), key=_worth)
    outdated = sorted((pod for pod in pods if pod.metadata.labels.get(HASH_LABEL) != revision), key=_worth)
    current, surplus = current[:wanted], current[wanted:]
    made = [world.put(_pod(world, deployment, revision)) for _ in range(wanted - len(current))]
    current += made
    kept = _kept(deployment, outdated, wanted - sum(map(is_ready, current)))
    gone = surplus + outdated[kept:]
    for pod in gone:
        world.remove(pod)
    world.put(replace(deployment, status=_status(deployment, current, outdated[:kept])))
    return [Change(pod, None) for pod in gone] + [Change(None, pod) for pod in made]


def template_hash(template: PodTemplateSpec) -> str:
    """Return ten characters that stand for a template, the same for equal ones."""
    digest = hashlib.sha256(msgspec.json.encode(template, order="sorted")).digest()
    return safe_text(int.from_bytes(digest, "big"), 10)


def _is_active(pod: Pod) -> bool:
    return pod.metadata.deletion_timestamp is None and not has_ended(pod)


def _worth(pod: Pod) -> tuple[bool, str, str]:
    """Sort key: the Pods to keep come first; ready before not ready, then old before young."""
    return not is_ready(pod), pod.metadata.creation_timestamp or "", pod.metadata.name


def _kept(deployment: Deployment, outdated: list[Pod], missing: int) -> int:
    """Return how many of the outdated Pods, the most worthy first, still have to serve."""
    strategy = deployment.spec.strategy
    if isinstance(strategy, dict) and strategy.get("type") == "Recreate":
        return 0
    return min(max(missing, 0), sum(map(is_ready, outdated)))


def _pod(world: World, deployment: Deployment, revision: str) -> Pod:
    meta, template = deployment.metadata, deployment.spec.template
    prefix = f"{meta.name}-{revision}-"
    return with_defaults(
        Pod(
            metadata=ObjectMeta(
                name=fresh_name(world, Pod, meta.namespace, prefix),
                generate_name=prefix,
                namespace=meta.namespace,
                labels={**template.metadata.labels, HASH_LABEL: revision},
                annotations=template.metadata.annotations,
                owner_references=[
                    OwnerReference(
                        api_version="apps/v1",
                        kind="Deployment",
                        name=meta.name,
                        uid=meta.uid,
                        controller=True,
                        block_owner_deletion=True,
                    )
                ],
            ),
            spec=template.spec,
        )
    )


def _status(deployment: Deployment, current: list[Pod], outdated: list[Pod]) -> DeploymentStatus:
    """Return the status; zeros are left out, as Kubernetes does."""
    wanted = deployment.spec.replicas or 0
    ready = sum(map(is_ready, current + outdated))
    return replace(
        deployment.status,
        observed_generation=deployment.metadata.generation,
        replicas=len(current) + len(outdated) or None,
        updated_replicas=len(current) or None,
        ready_replicas=ready or None,
        available_replicas=ready or None,
        unavailable_replicas=max(wanted - ready, 0) or None,
    )
