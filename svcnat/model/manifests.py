"""Files to objects: read every document, check it, and either return all of them or say everything that is wrong.

It opens no file (callers bring names and bytes), fills in no default, and looks at no object that is already stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from svcnat.errors import Finding, ManifestError
from svcnat.model import kinds, manifest_text, shape
from svcnat.model.identity import claimed_kind, items_of, subject_of
from svcnat.model.kinds import Kind
from svcnat.model.manifest_text import Document, Lines
from svcnat.model.objects import Resource
from svcnat.model.quoting import printable, quoted, steps
from svcnat.model.validation import Problem, validate

LARGEST = 3 * 1024 * 1024
"""The largest object, in bytes of JSON: what the Kubernetes API server takes in one request."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One object, and where its user wrote it."""

    source: str
    resource: Resource
    lines: Lines = field(repr=False, compare=False)

    @property
    def line(self) -> int:
        """The line of the file on which the object begins."""
        return self.lines.of("")

    def locate(self, field_path: str) -> int:
        """Return the line of a field (``spec.ports[0].port``), or of what is nearest above it when it is absent."""
        return self.lines.of(field_path)


@dataclass(frozen=True, slots=True)
class Manifest(Placed):
    """One object as its user wrote it: `document` has no defaults, nulls or unknown fields, but has a namespace."""

    document: dict[str, Any] = field(repr=False)  # it may be a Secret's


@dataclass(frozen=True, slots=True)
class Loaded:
    """What :func:`load` read: the objects, what is doubtful about them, and the documents svcnat has no use for."""

    manifests: tuple[Manifest, ...]
    warnings: tuple[Finding, ...]
    skipped: tuple[Finding, ...]


def load(
    texts: Iterable[tuple[str, bytes]],
    *,
    strict: bool = False,
    namespace: str = "default",
) -> Loaded:
    """Return the objects of files, each given as its name and its bytes: YAML or JSON, any number of documents.

    Lists (``kind: List``, ``ServiceList``) are opened; kinds that svcnat does not know are skipped, with one finding
    each. `namespace` is put into namespaced objects that name none. With `strict`, unknown fields are errors.

    Raises:
        ManifestError: with every finding of every file, in their order.

    """
    judge = _Judge(strict, namespace)
    whole = _Verdict()
    for source, data in texts:
        whole.add(judge.file(source, data))
    whole.errors.extend(_claimed_twice(whole.manifests))
    if whole.errors:
        raise ManifestError(whole.errors)
    return Loaded(tuple(whole.manifests), tuple(whole.warnings), tuple(whole.skipped))


class Loader:
    """Loads the same files over and over: one whose bytes are what they were the last time is not parsed again.

    It remembers the objects and the mistakes of the last files, and nothing older.
    """

    def __init__(self, *, namespace: str = "default") -> None:
        self._judge = _Judge(strict=False, namespace=namespace)
        self._known: dict[str, _Known] = {}

    def load(self, texts: Iterable[tuple[str, bytes]]) -> list[Placed]:
        """Return the objects that :func:`load` returns for these files, or raise what it raises."""
        files: list[_Known] = []
        for source, data in texts:
            last = self._known.get(source)
            files.append(last.again(data) if last and last.text.data == data else self._parsed(source, data))
        self._known = {file.text.source: file for file in files}
        objects = [each for file in files for each in file.objects]
        errors = [each for file in files for each in file.errors]
        errors.extend(_claimed_twice(objects))
        if errors:
            raise ManifestError(errors)
        return objects

    def _parsed(self, source: str, data: bytes) -> _Known:
        text, verdict = _Text(self._judge, source, data), self._judge.file(source, data)
        objects = [Placed(source, each.resource, _Later(text, at)) for at, each in enumerate(verdict.manifests)]
        return _Known(text, objects, verdict.errors)


@dataclass(slots=True)
class _Text:
    """A file that can be parsed once more; it knows no object: in a circle, nothing would be freed at once."""

    judge: _Judge
    source: str
    data: bytes = field(repr=False)
    _lines: list[Lines] | None = None

    def lines(self) -> list[Lines]:
        """Of each object."""
        if self._lines is None:
            self._lines = [each.lines for each in self.judge.file(self.source, self.data).manifests]
        return self._lines


class _Later(Lines):
    """The lines of an object that is kept: they weigh more than it does, and only mistakes ask for them."""

    def __init__(self, text: _Text, index: int) -> None:
        self._file = text
        self._index = index

    def of(self, path: str) -> int:
        return self._file.lines()[self._index].of(path)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the bytes of a file were parsed to."""

    text: _Text
    objects: list[Placed]
    errors: list[Finding]

    def again(self, data: bytes) -> _Known:
        """Hold these bytes, which are the same, in the place of those that it has: their reader keeps them, too."""
        self.text.data = data
        return self


@dataclass(slots=True)
class _Verdict:
    """What is to be said about one document, or about many."""

    manifests: list[Manifest] = field(default_factory=list)
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    skipped: list[Finding] = field(default_factory=list)

    def add(self, other: _Verdict) -> None:
        """Take over what is said about one more document."""
        self.manifests += other.manifests
        self.errors += other.errors
        self.warnings += other.warnings
        self.skipped += other.skipped


@dataclass(frozen=True, slots=True)
class _Piece:
    """One object before it is known to be one; `size` is at least that of its text."""

    source: str
    root: Any
    lines: Lines
    size: int


@dataclass(frozen=True, slots=True)
class _Judge:
    """Judges objects as their text says, line by line as written."""

    strict: bool
    namespace: str

    def file(self, source: str, data: bytes) -> _Verdict:
        """Return the verdict on all documents of a file; nothing but its bytes decides it."""
        whole = _Verdict()
        for document in manifest_text.documents(data):
            verdict = _judge_document(self, source, document)
            if verdict.errors:
                # An unknown field is often why another one is missing: the hint must not get lost.
                verdict.errors += verdict.warnings
            whole.add(verdict)
        return whole

    def document(self, source: str, document: Document) -> _Verdict:
        """Return the verdict on a document, opening lists however they are nested."""
        verdict = _Verdict()
        for flaw in document.flaws:
            subject = subject_of(document.root, self.namespace)
            verdict.errors.append(Finding(printable(source), flaw.line, subject, flaw.field, flaw.reason))
        waiting = [] if document.root is None else [_Piece(source, document.root, document.lines, document.size)]
        while waiting:
            piece = waiting.pop()
            items = items_of(piece.root)
            if items is None:
                self._object(piece, verdict)
            else:
                pieces = (
                    _Piece(source, item, piece.lines.below(f"items[{index}]"), piece.size)
                    for index, item in enumerate(items)
                )
                waiting.extend(reversed([*pieces]))
        return verdict

    def _object(self, piece: _Piece, verdict: _Verdict) -> None:
        kind, problem = claimed_kind(piece.root)
        if problem is not None:
            verdict.errors.append(self._finding(piece, problem))
        elif kind is None:
            reason = f"skipped: svcnat has no use for kind {quoted(piece.root['kind'])}"
            verdict.skipped.append(self._finding(piece, Problem("", reason)))
        # JSON may be twice as long as YAML, with a backslash before every quote: only large texts are measured.
        elif piece.size * 2 > LARGEST and len(msgspec.json.encode(piece.root)) > LARGEST:
            reason = f"Too long: may not be more than {LARGEST} bytes"
            verdict.errors.append(self._finding(piece, Problem("", reason)))
        else:
            self._known(piece, kind, verdict)

    def _known(self, piece: _Piece, kind: Kind, verdict: _Verdict) -> None:
        found = shape.check(piece.root, kind.type)
        for unknown in found.unknown:
            reason = f"unknown field{'' if self.strict else ', ignored'}{unknown.hint}"
            where = verdict.errors if self.strict else verdict.warnings
            where.append(self._finding(piece, Problem(unknown.path, reason)))
        for path, reason in found.wrong:
            verdict.errors.append(self._finding(piece, Problem(path, reason)))
        document = {"apiVersion": kind.group_version, "kind": kind.name, **found.pruned}
        if kind.namespaced:
            document["metadata"] = {"namespace": self.namespace, **document.get("metadata", {})}
        resource = kinds.from_document(document)
        wrong = _Wrong(path for path, _ in found.wrong)
        for problem in validate(resource):
            if not wrong.concerns(problem.at or problem.field):
                verdict.errors.append(self._finding(piece, problem))
        verdict.manifests.append(Manifest(piece.source, resource, piece.lines, document))

    def _finding(self, piece: _Piece, problem: Problem) -> Finding:
        line = piece.lines.of(problem.at or problem.field)
        subject = subject_of(piece.root, self.namespace)
        return Finding(printable(piece.source), line, subject, problem.field, problem.reason)


class _Wrong:
    """The fields that have the wrong type: what validation says about them, or because of them, is no news."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = set(paths)
        self._above = {above for path in self._paths for _, above in steps(path)}

    def concerns(self, path: str) -> bool:
        """Tell whether a problem at `path` is about a wrong field, something in it, or something that holds it."""
        return bool(self._paths) and (path in self._above or any(above in self._paths for _, above in steps(path)))


def _judge_document(judge: _Judge, source: str, document: Document) -> _Verdict:
    """Return the verdict on a document; where lost indentation explains what is wrong, it says that instead.

    The document is read a second time with every line where it belongs. If that leaves less to complain about, the
    misplaced lines are the errors, followed by what is wrong with the mended document: nothing is hidden by them.
    """
    verdict = judge.document(source, document)
    if not document.text or not (verdict.errors or verdict.warnings):
        return verdict
    from svcnat.model import indentation  # Only documents with something wrong pay for this import.

    diagnosis = indentation.diagnose(document.text, document.first)
    if not diagnosis.misplaced:
        return verdict
    mended = next(manifest_text.from_yaml(diagnosis.text, document.first))
    second = judge.document(source, mended)
    subject = subject_of(mended.root, judge.namespace)
    place = printable(source)
    found = [Finding(place, each.line, subject, each.field, each.reason) for each in diagnosis.misplaced]
    if mended.broken:
        # As far as the text can be read now, the misplaced lines were the reason that it could not be before.
        reached = mended.flaws[-1].line
        explained = [finding for finding in found if finding.line <= reached]
        if document.broken and explained and explained[0].line <= document.flaws[-1].line:
            second.errors = [*explained, *second.errors]
            return second
        return verdict
    if not document.broken and len(second.errors) + len(second.warnings) >= len(verdict.errors) + len(verdict.warnings):
        return verdict
    if len(second.errors) < len(verdict.errors) or any(each.certain for each in diagnosis.misplaced) or judge.strict:
        second.errors = found + second.errors
    else:
        hinted = [replace(finding, reason=f"unknown field, ignored: {finding.reason}") for finding in found]
        verdict.warnings = hinted + second.warnings
        return verdict
    return second


def _claimed_twice(manifests: Iterable[Placed]) -> Iterable[Finding]:
    """Yield a finding for every object that an earlier manifest has already."""
    first: dict[tuple[str, str, str], Placed] = {}
    for manifest in manifests:
        metadata, kind = manifest.resource.metadata, kinds.kind_of(manifest.resource)
        earlier = first.setdefault((kind.name, metadata.namespace, metadata.name), manifest)
        if earlier is not manifest and metadata.name:
            reason = f"Duplicate value: {quoted(metadata.name)}: the same object is at {printable(earlier.source)}"
            subject = subject_of(kinds.to_document(manifest.resource), metadata.namespace)
            line = manifest.locate("metadata.name")
            yield Finding(printable(manifest.source), line, subject, "metadata.name", f"{reason}:{earlier.line}")
