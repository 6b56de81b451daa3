"""The packages that an archive offers.

An index of Debian's main component is 50 MB with 63 000 packages, of which a base
system asks for some hundred. So it is cut into paragraphs, which are kept as they are,
and one is parsed when somebody asks for it: that takes 0.2 s, where python-debian's
reader, which parses every field of every package, takes 5 s (pure Python; its fast path
needs python3-apt, which is not on PyPI).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from wherry.errors import CorruptState
from wherry_vmimage.control import Alternatives, Relation, parse_paragraph, parse_relations
from wherry_vmimage.versions import VersionKey, satisfies, version_key

if TYPE_CHECKING:
    from collections.abc import Iterator

# In the order in which a distribution adds them to a system.
PRIORITIES = ("required", "important", "standard", "optional", "extra")


@dataclass(frozen=True, eq=False)
class Package:
    """One version of a package; equal only to itself."""

    fields: dict[str, str]
    base_uri: str  # what `Filename` is relative to
    automatic: bool = True  # not from an archive such as backports, used only where asked for
    other_uris: tuple[str, ...] = ()  # further bases, where it is not at the first

    @property
    def name(self) -> str:
        return self.fields["Package"]

    @property
    def version(self) -> str:
        return self.fields["Version"]

    @property
    def architecture(self) -> str:
        return self.fields["Architecture"]

    @property
    def uris(self) -> tuple[str, ...]:
        """Where it may be, the likeliest first."""
        from urllib.parse import quote

        path = quote(self.fields["Filename"], safe="/+~:@")
        return tuple(f"{base}/{path}" for base in (self.base_uri, *self.other_uris))

    @property
    def sha256(self) -> str:
        return self.fields["SHA256"]

    @property
    def size(self) -> int:
        return int(self.fields["Size"])

    @property
    def essential(self) -> bool:
        return self.fields.get("Essential") == "yes"

    @property
    def priority(self) -> int:
        """The place of this package's priority in PRIORITIES."""
        priority = self.fields.get("Priority", "optional")
        return PRIORITIES.index(priority) if priority in PRIORITIES else len(PRIORITIES)

    @cached_property
    def preference(self) -> tuple[bool, VersionKey]:
        return self.automatic, version_key(self.version)

    @cached_property
    def pre_depends(self) -> tuple[Alternatives, ...]:
        return parse_relations(self.fields.get("Pre-Depends", ""))

    @cached_property
    def depends(self) -> tuple[Alternatives, ...]:
        """Everything that this package needs, Pre-Depends first."""
        return self.pre_depends + parse_relations(self.fields.get("Depends", ""))

    @cached_property
    def recommends(self) -> tuple[Alternatives, ...]:
        return parse_relations(self.fields.get("Recommends", ""))

    @cached_property
    def excludes(self) -> tuple[Relation, ...]:
        """What this package cannot be installed with."""
        both = f"{self.fields.get('Conflicts', '')},{self.fields.get('Breaks', '')}"
        return tuple(
            relation for alternatives in parse_relations(both) for relation in alternatives
        )

    @cached_property
    def provides(self) -> tuple[Relation, ...]:
        relations = parse_relations(self.fields.get("Provides", ""))
        return tuple(relation for alternatives in relations for relation in alternatives)

    def matches(self, relation: Relation, architecture: str) -> bool:
        """Whether this package is what `relation` names, by its own name or by one it provides."""
        if relation.qualifier not in ("", "any", "native", architecture):
            return False
        if self.name == relation.name:
            return relation.operator is None or satisfies(
                self.version, relation.operator, relation.version
            )
        # Policy 7.5: a versioned relation is met only by a versioned `Provides`.
        return any(
            provided.name == relation.name
            and (
                relation.operator is None
                or (
                    provided.operator == "="
                    and satisfies(provided.version, relation.operator, relation.version)
                )
            )
            for provided in self.provides
        )

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class PackageIndex:
    """Every package of some archives, for one architecture."""

    architecture: str
    _stanzas: dict[str, list[tuple[bytes, str, bool]]] = field(default_factory=dict)
    _providers: dict[str, list[str]] = field(default_factory=dict)
    _needed: dict[str, None] = field(default_factory=dict)  # essential or of a base priority
    _parsed: dict[str, list[Package]] = field(default_factory=dict)

    def add(self, content: bytes, base_uri: str, *, automatic: bool = True) -> None:
        """Add an archive's Packages file."""
        for stanza in content.strip().split(b"\n\n"):
            if not stanza.startswith(b"Package: "):
                if stanza.strip():
                    self._add_unusual(stanza, base_uri, automatic)
                continue
            name = stanza[9 : stanza.find(b"\n")].strip().decode()
            self._add_stanza(name, stanza, base_uri, automatic)

    def _add_unusual(self, stanza: bytes, base_uri: str, automatic: bool) -> None:
        """A paragraph that does not begin with its name, which the format allows."""
        name = _parse(stanza).get("Package")
        if name is None:
            raise CorruptState("an entry of the package index has no Package field")
        self._add_stanza(name, stanza, base_uri, automatic)

    def _add_stanza(self, name: str, stanza: bytes, base_uri: str, automatic: bool) -> None:
        self._stanzas.setdefault(name, []).append((stanza, base_uri, automatic))
        self._parsed.pop(name, None)
        if b"\nProvides: " in stanza:
            start = stanza.index(b"\nProvides: ") + 11
            end = stanza.find(b"\n", start)
            for provided in stanza[start : end if end > 0 else None].decode().split(","):
                names = self._providers.setdefault(provided.strip().split(" ")[0].split(":")[0], [])
                if name not in names:
                    names.append(name)
        if b"\nEssential: yes" in stanza or any(
            b"\nPriority: " + priority in stanza
            for priority in (b"required", b"important", b"standard")
        ):
            self._needed[name] = None

    def versions(self, name: str) -> list[Package]:
        """The versions of a package, the preferred one first."""
        if name not in self._parsed:
            found = [
                Package(_parse(stanza), base_uri, automatic)
                for stanza, base_uri, automatic in self._stanzas.get(name, ())
            ]
            usable = [p for p in found if p.architecture in (self.architecture, "all")]
            usable.sort(key=lambda package: package.preference, reverse=True)
            self._parsed[name] = usable
        return self._parsed[name]

    def candidate(self, name: str) -> Package | None:
        """The version of a package that would be installed."""
        return next(iter(self.versions(name)), None)

    def matching(self, relation: Relation) -> Iterator[Package]:
        """What can stand for `relation`, the best first: its own name, then who provides it."""
        yield from (
            p for p in self.versions(relation.name) if p.matches(relation, self.architecture)
        )
        providers = [
            package
            for name in self._providers.get(relation.name, ())
            if name != relation.name
            for package in self.versions(name)[:1]
            if package.matches(relation, self.architecture)
        ]
        yield from sorted(providers, key=lambda p: (not p.essential, p.priority, p.name))

    def base(self, priority: str | None) -> list[Package]:
        """The essential packages, and those of `priority` and of the priorities before it."""
        limit = -1 if priority is None else PRIORITIES.index(priority)
        packages = (self.candidate(name) for name in sorted(self._needed))
        return [p for p in packages if p and (p.essential or p.priority <= limit)]

    def __len__(self) -> int:
        return len(self._stanzas)


def _parse(stanza: bytes) -> dict[str, str]:
    return parse_paragraph(stanza.decode())
