"""The processes of pods: what each pod is to run, written down for the supervisor, and a supervisor that runs it.

One round of the kubelet has one of these. Which pods there are, and when one ends, is :mod:`svcnat.lab.kubelet`'s
decision; how a process is run and started again, the supervisor's.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from svcnat.errors import LabError
from svcnat.kernel import folders, netns
from svcnat.lab import containers, names, nameserver, payloads, process, state, statuses, volumes
from svcnat.lab.containers import Missing, Place
from svcnat.lab.labs import Lab
from svcnat.lab.process import ProcessId
from svcnat.lab.state import Program, Started
from svcnat.lab.supervision import Crew, CrewState, Mount, Supervision, Task, files_of, logs_of, read_crew, write_crew
from svcnat.lab.volumes import Files
from svcnat.model.contents import contents, variables
from svcnat.model.objects import ConfigMap, Container, Pod, Secret, Service
from svcnat.model.services import cluster_ips_of
from svcnat.store.snapshot import Snapshot

_KINDS: dict[str, type[ConfigMap | Secret]] = {"ConfigMap": ConfigMap, "Secret": Secret}
_VOLUMES = "volumes"
_POLITE = 0.3  # seconds for processes that end when they are asked to
_GRACE_SECONDS = 30.0


def programs_of(lab: Lab, pod: Pod, path: str) -> tuple[Program, ...]:
    """What each container of a pod runs on this machine."""
    images = {nameserver.IMAGE: nameserver.command(lab.name), **lab.topology.images}
    return tuple(
        Program(each.name, asked, containers.command_of(each, images, path))
        for each, asked in zip(containers.all_of(pod), asked_of(pod), strict=True)
    )


def asked_of(pod: Pod) -> tuple[str, ...]:
    """The digest of what each container's manifest asks to be run."""
    return tuple(
        hashlib.sha256("\0".join((each.image, *each.command, "", *each.args)).encode()).hexdigest()[:16]
        for each in containers.all_of(pod)
    )


class _Told(NamedTuple):
    """What the containers of a pod are told: those without a process, too, but for `tasks`."""

    environments: dict[str, dict[str, str]]
    mounts: dict[str, dict[str, Mount]]
    tasks: tuple[Task, ...]


class Furnisher:
    """Writes down what pods that start are to run and see; reads what it needs of the store once."""

    def __init__(self, lab: Lab, snapshot: Snapshot, path: str) -> None:
        self._lab, self._snapshot, self._path = lab, snapshot, path
        self._services: dict[str, Sequence[Service]] = {}
        self._given: dict[str, str] = {}

    def furnish(self, pod: Pod, started: Started, place: Place, where: str) -> Started:
        """Write the files of a pod that starts, in the network namespace `where`, and say what it was given.

        Raises:
            LabError: they cannot be written.

        """
        with state.writing(self._lab.folder):
            return self._furnish(pod, started, place, where)

    def _furnish(self, pod: Pod, started: Started, place: Place, where: str) -> Started:
        self._given = {}
        folder = files_of(self._lab.folder, started.device)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = {"/etc/hosts": containers.hosts_file(pod, place.addresses)}
        if text := containers.resolv_conf(pod, self.nameservers):
            files["/etc/resolv.conf"] = text
        for target, text in files.items():
            (folder / Path(target).name).write_text(text, encoding="utf-8")
        told = self._told(pod, started, place)
        spec = pod.spec
        write_crew(
            self._lab.folder,
            Crew(
                key=started.device,
                name=started.name,
                netns=str(netns.path(where)),
                hostname=place.node if spec.host_network else containers.hostname_of(pod),
                logs=str(logs_of(self._lab.folder, pod.metadata.uid)),
                files={target: str(folder / Path(target).name) for target in files},
                policy=spec.restart_policy or "Always",
                grace=_GRACE_SECONDS
                if spec.termination_grace_period_seconds is None
                else float(spec.termination_grace_period_seconds),
                back_off=self._lab.topology.back_off,
                path=self._path,
                environments=told.environments,
                mounts=told.mounts,
                tasks=told.tasks,
            ),
        )
        return replace(started, given=self._given)

    def renew(self, pod: Pod, started: Started, place: Place) -> Started:
        """Write down what a pod that runs is given now: it counts for containers that start, or start again."""
        self._given = {}
        if crew := read_crew(self._lab.folder, started.device):
            told = self._told(pod, started, place, crew)
            known = {each.name: each for each in crew.tasks}
            tasks = tuple(
                replace(each, restarts=known[each.name].restarts, ended=known[each.name].ended) for each in told.tasks
            )
            with state.writing(self._lab.folder):
                write_crew(
                    self._lab.folder, replace(crew, environments=told.environments, mounts=told.mounts, tasks=tasks)
                )
        return replace(started, given=self._given)

    def _told(self, pod: Pod, started: Started, place: Place, before: Crew | None = None) -> _Told:
        """What the containers of a pod are to be told; its volumes are written, those of `before` stay if need be."""
        folder = files_of(self._lab.folder, started.device) / _VOLUMES
        mounts = before.mounts if before else {}
        lacking, held = "", None
        try:
            held = volumes.volumes_of(pod, place, self._contents)
            _write_volumes(folder, held)
        except Missing as missing:
            # What was there once is still there for a container that starts again.
            if before is None or any(each.trouble.startswith(volumes.FAILED) for each in before.tasks):
                lacking = str(missing)
        environments: dict[str, dict[str, str]] = {}
        troubles: dict[str, str] = {}
        # Those who name no container get the first one's.
        for each in (*pod.spec.containers, *pod.spec.init_containers):
            environments[each.name], trouble = self._environment(pod, each, place)
            if held is not None:
                try:
                    found = volumes.mounts_of(each, held, folder, environments[each.name])
                    _make_parts(each, found)
                    mounts = {**mounts, each.name: found}
                except Missing as missing:
                    trouble = trouble or str(missing)
            troubles[each.name] = lacking or trouble
        for program in started.programs:
            if self._serves_names(program):
                environments[program.name].update(nameserver.environment(self._lab.folder))
        tasks = tuple(
            self._task(pod, each, program, environments[each.name], troubles[each.name])
            for each, program in zip(containers.all_of(pod), started.programs, strict=True)
            if program.command
        )
        return _Told(environments, mounts, tasks)

    @functools.cached_property
    def nameservers(self) -> tuple[str, ...]:
        """Where the cluster's DNS is: the addresses of the Service ``kube-system/kube-dns``, none if there is none."""
        service = self._snapshot.get(Service, names.SYSTEM, nameserver.SERVICE)
        return cluster_ips_of(service.spec) if service else ()

    def _environment(self, pod: Pod, container: Container, place: Place) -> tuple[dict[str, str], str]:
        """A container's variables, and what is missing for them."""
        namespace = pod.metadata.namespace
        if namespace not in self._services:
            self._services[namespace] = self._snapshot.list(Service, namespace)
        try:
            return containers.environment_of(pod, container, self._services[namespace], place, self._data), ""
        except Missing as missing:
            return {}, str(missing)

    def _data(self, kind: str, namespace: str, name: str) -> Mapping[str, str] | None:
        found = self._find(kind, namespace, name)
        return variables(found) if found else None

    def _contents(self, kind: str, namespace: str, name: str) -> Mapping[str, bytes] | None:
        found = self._find(kind, namespace, name)
        return contents(found) if found else None

    def _find(self, kind: str, namespace: str, name: str) -> ConfigMap | Secret | None:
        found = self._snapshot.get(_KINDS[kind], namespace, name)
        self._given[f"{kind}/{name}"] = found.metadata.resource_version if found else ""
        return found

    def _task(
        self, pod: Pod, container: Container, program: Program, environment: dict[str, str], trouble: str
    ) -> Task:
        words = tuple(containers.expanded(word, environment) for word in program.command)
        file = containers.program(words[0], environment.get("PATH", self._path)) or words[0]
        folder, part = container.working_dir or "/", containers.part_of(pod, container)
        port = nameserver.PORT if self._serves_names(program) else 0
        return Task(container.name, (file, *words[1:]), folder, trouble=trouble, part=part, port=port)

    def _serves_names(self, program: Program) -> bool:
        return program.command == nameserver.command(self._lab.name)


def _write_volumes(folder: Path, held: Mapping[str, Files | None]) -> None:
    """Have the volumes of a pod in a folder.

    Raises:
        Missing: one cannot be written.

    """
    for name, files in held.items():
        try:
            if files is None:
                _make_folders([str(folder / name)])
            else:
                payloads.write(folder / name, files)
        except OSError as error:
            raise Missing(f'{volumes.FAILED} "{name}" : {error.strerror}') from error


def _make_parts(container: Container, found: Mapping[str, Mount]) -> None:
    """Have the parts of volumes that a container is to see.

    Raises:
        Missing: one cannot be made, as programs of the pod write where it is to be.

    """
    try:
        _make_folders(mount.source for mount in found.values())
    except OSError as error:
        raise Missing(f'failed to prepare subPath for container "{container.name}" : {error.strerror}') from error


def _make_folders(paths: Iterable[str]) -> None:
    """Have folders that whoever a program runs as may write to, as the kubelet's."""
    for path in map(Path, paths):
        if not path.exists():
            folders.make(path)
            path.chmod(0o777)


def versions(snapshot: Snapshot) -> dict[str, Mapping[tuple[str, str], str]]:
    """The resourceVersions of all that pods may be given, by kind, namespace and name."""
    return {name: snapshot.versions(kind) for name, kind in _KINDS.items()}


def is_outdated(started: Started, now: Mapping[str, Mapping[tuple[str, str], str]]) -> bool:
    """Tell whether a pod was given something else than there is, given what :func:`versions` says."""
    namespace = started.name.partition("/")[0]
    places = ((place.partition("/"), version) for place, version in started.given.items())
    return any(now[kind].get((namespace, name), "") != version for (kind, _, name), version in places)


class Crews:
    """The supervisor as one round of the kubelet has it: started again if it ended, but not before it is needed."""

    def __init__(self, folder: Path, recorded: ProcessId | None, remember: Callable[[ProcessId], None]) -> None:
        self._folder, self._recorded, self._remember = folder, recorded, remember
        self.states: dict[str, CrewState] = {}

    @property
    def runs(self) -> bool:
        """True if there is a supervisor."""
        return process.is_alive(self._recorded)

    def look(self) -> None:
        """Learn how processes fare."""
        self.states = {}
        if self.runs:
            with contextlib.suppress(LabError), Supervision(self._folder) as supervision:
                self.states = supervision.states()

    def man(self, wanted: Mapping[str, Pod], renewed: Collection[str], kept: Iterable[str] = ()) -> None:
        """Run the processes of these pods, given by key, and of no others, but for those that are to be `kept`.

        Those `renewed` have been furnished anew.

        Raises:
            LabError: the supervisor cannot be started, or refuses.

        """
        if not self.runs:
            if not wanted:
                self.states = {}
                return
            self._recorded = process.start_supervisor(self._folder)
            self._remember(self._recorded)
        with Supervision(self._folder) as supervision:
            known = supervision.states()
            missing = [key for key, pod in wanted.items() if key not in known and self._prepare(key, pod)]
            supervision.run(missing)
            supervision.renew([key for key in renewed if key in known])
            staying = {*wanted, *kept}
            if strangers := [key for key, state in known.items() if key not in staying and not state.leaving]:
                supervision.leave(strangers)
            self.states = supervision.states()

    def _prepare(self, key: str, pod: Pod) -> bool:
        """Tell the crew what became of it under the supervisor before; False if none of it is to run any more."""
        crew = read_crew(self._folder, key)
        if crew is None:
            raise LabError(f"the files of pod {pod.metadata.qualified_name} are gone")
        tasks = tuple(statuses.resumed(pod, task) if pod.status.pod_ip else task for task in crew.tasks)
        if tasks != crew.tasks:
            write_crew(self._folder, replace(crew, tasks=tasks))
        return not all(task.ended for task in tasks)

    def dismiss(self, graces: Mapping[str, float | None]) -> set[str]:
        """Ask the processes of pods to end, in so many seconds or their own time; the answer is those that have not."""
        leaving = set(graces)
        if not leaving or not self.runs:
            return set()
        try:
            with Supervision(self._folder) as supervision:
                self.states = supervision.states()
                leaving &= self.states.keys()
                asked = {key for key in leaving if not self.states[key].leaving}
                for grace in {graces[key] for key in leaving}:
                    # One that leaves already may have less time from now on.
                    supervision.leave(
                        [key for key in leaving if graces[key] == grace and (key in asked or grace is not None)], grace
                    )
                end = time.monotonic() + (_POLITE if asked else 0)
                while True:
                    self.states = supervision.states()
                    leaving &= self.states.keys()
                    left = end - time.monotonic()
                    if not leaving or left <= 0:
                        return leaving
                    supervision.wait(left)
        except LabError:
            return set()  # with a supervisor, all that it ran ends

    def forget(self, key: str) -> None:
        """Remove the files of a pod that has gone; its logs stay."""
        with contextlib.suppress(OSError):
            folders.remove(files_of(self._folder, key))
