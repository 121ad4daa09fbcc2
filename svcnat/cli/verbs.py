"""The list of verbs: what each is called, which module runs it, and the line that ``svcnat --help`` shows.

Nothing here imports a verb's module: help and a mistyped verb must cost nothing.

A verb's module has ``add_arguments(parser)`` and ``run(options) -> int``; its docstring is its help page.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb; `command` says that it takes ``-- CMD ARG...``."""

    name: str
    module: str
    group: str
    help: str
    command: bool = False


VERBS: tuple[Verb, ...] = (
    Verb("create", "create", "Objects", "create objects from manifests; it is an error if one exists"),
    Verb("apply", "apply", "Objects", "create objects from manifests, or change them to match"),
    Verb("replace", "replace", "Objects", "put objects of manifests in the place of those that are there"),
    Verb("diff", "diff", "Objects", "show what apply would change, of objects and of rules"),
    Verb("delete", "delete", "Objects", "delete objects by manifest, name or label"),
    Verb("scale", "scale", "Objects", "set how many pods a deployment, replicaset or statefulset has"),
    Verb("patch", "patch", "Objects", "change fields of objects, or of their status"),
    Verb("edit", "edit", "Objects", "edit objects in an editor"),
    Verb("expose", "expose", "Objects", "make a Service for a pod, deployment or service"),
    Verb("label", "label", "Objects", "set labels of objects, or remove them"),
    Verb("annotate", "annotate", "Objects", "set annotations of objects, or remove them: weights, drain"),
    Verb("rollout status", "rollout_status", "Objects", "wait until a rollout is done"),
    Verb("rollout restart", "rollout_restart", "Objects", "make all pods anew, as a rollout"),
    Verb("rollout undo", "rollout_undo", "Objects", "go back to a former revision"),
    Verb("rollout pause", "rollout_pause", "Objects", "let a deployment's template change without consequence"),
    Verb("rollout resume", "rollout_resume", "Objects", "let a paused deployment go on"),
    Verb("rollout history", "rollout_history", "Objects", "list former revisions"),
    Verb("cordon", "cordon", "Objects", "have no more pods placed on nodes"),
    Verb("uncordon", "uncordon", "Objects", "have pods placed on nodes again"),
    Verb("get", "get", "Objects", "list objects"),
    Verb("wait", "wait", "Objects", "wait until objects have met a condition"),
    Verb("describe", "describe", "Objects", "show objects in full, with their endpoints and counters"),
    Verb("logs", "logs", "Objects", "print what a container of a lab's pod said"),
    Verb("exec", "lab_exec", "Objects", "run a command in a pod of a lab: POD -- CMD", command=True),
    Verb("render", "render", "Rules", "print the nft script of manifests (needs no privilege)"),
    Verb("sync", "sync", "Rules", "make a namespace's rules equal to manifests, without a state file"),
    Verb("run", "run", "Rules", "the agent: keep rules equal to objects, whatever happens, in the foreground"),
    Verb("status", "status", "Rules", "are the rules equal to the objects? and how the agent fares"),
    Verb("cleanup", "cleanup", "Rules", "remove svcnat's rules from a namespace, and nothing else"),
    Verb("dns", "dns", "Rules", "the DNS server: answer the names of services and pods, in the foreground"),
    Verb("lab up", "lab_up", "Lab", "build nodes and pods as network namespaces, and apply manifests"),
    Verb("lab list", "lab_list", "Lab", "list the labs that are up"),
    Verb("lab exec", "lab_exec", "Lab", "run a command in a pod, node or client: POD -- CMD", command=True),
    Verb("lab node stop", "lab_node_stop", "Lab", "switch nodes off, as by a power cut"),
    Verb("lab node start", "lab_node_start", "Lab", "switch nodes on again"),
    Verb("lab node partition", "lab_node_partition", "Lab", "cut nodes off from the others, while they live"),
    Verb("lab node heal", "lab_node_heal", "Lab", "end partitions"),
    Verb("lab down", "lab_down", "Lab", "remove labs, leaving nothing"),
    Verb("doctor", "doctor", "Other", "find what keeps services from working here, and the command that fixes it"),
    Verb("version", "version", "Other", "print the versions of svcnat, libnftables and the kernel"),
)

BY_NAME: dict[str, Verb] = {verb.name: verb for verb in VERBS}
PREFIXES: frozenset[str] = frozenset(
    " ".join(words[:count]) for words in (verb.name.split() for verb in VERBS) for count in range(1, len(words))
)


def overview() -> str:
    """The verbs by group, for ``svcnat --help``."""
    width = max(len(verb.name) for verb in VERBS)
    lines: list[str] = []
    group = ""
    for verb in VERBS:
        if verb.group != group:
            group = verb.group
            lines += ["", f"{group}:"]
        lines.append(f"  {verb.name.ljust(width)}  {verb.help}")
    return "\n".join(lines[1:])
