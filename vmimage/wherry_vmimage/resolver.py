"""Which packages are needed for those that were asked for.

A search with backtracking: each dependency in turn takes the first alternative that
fits what is chosen already; where nothing fits, the latest choice is taken back. What
was asked for is chosen first, so that it decides between alternatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wherry.errors import Conflict, NotFound, WherryError
from wherry_vmimage.control import Alternatives, Relation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from wherry_vmimage.packages import Package, PackageIndex

# More choices than any sensible request needs; it bounds a request that cannot be met.
_MAX_CHOICES = 50_000


class Selection:
    """Packages that are to be installed together, in the order in which they were chosen."""

    def __init__(self, architecture: str, packages: Iterable[Package] = ()) -> None:
        self._architecture = architecture
        self._packages: dict[str, Package] = {}
        self._providers: dict[str, list[Package]] = {}
        for package in packages:
            self.add(package)

    def add(self, package: Package) -> None:
        self._packages[package.name] = package
        for provided in package.provides:
            self._providers.setdefault(provided.name, []).append(package)

    def keep(self, count: int) -> None:
        """Drop all but the first `count`."""
        for name in list(self._packages)[count:]:
            package = self._packages.pop(name)
            for provided in package.provides:
                self._providers[provided.name].remove(package)

    def get(self, name: str) -> Package | None:
        return self._packages.get(name)

    def matching(self, relation: Relation) -> list[Package]:
        """What of this stands for `relation`."""
        candidates = self._providers.get(relation.name, [])
        if package := self._packages.get(relation.name):
            candidates = [package, *candidates]
        return [p for p in candidates if p.matches(relation, self._architecture)]

    def needs(self, dependencies: Iterable[Alternatives]) -> list[Package]:
        """What of this meets `dependencies`."""
        return list(
            dict.fromkeys(
                package
                for alternatives in dependencies
                for relation in alternatives
                for package in self.matching(relation)
            )
        )

    def __iter__(self) -> Iterator[Package]:
        return iter(self._packages.values())

    def __len__(self) -> int:
        return len(self._packages)


@dataclass(frozen=True)
class _Need:
    """A dependency, and who has it."""

    alternatives: Alternatives
    asker: Package | None


@dataclass
class _Choice:
    """A point that the search can return to: what is left to try for one need."""

    options: Iterator[Package]
    need: _Need
    chosen: int
    needs: int
    position: int


class _Search:
    def __init__(
        self,
        index: PackageIndex,
        needs: Iterable[_Need],
        recommends: bool,
        without: Collection[str],
    ) -> None:
        self._index = index
        self._recommends = recommends
        self._without = without
        self._needs = list(needs)
        self._position = 0
        self._chosen = Selection(index.architecture)
        self._choices: list[_Choice] = []
        self._problem: WherryError | None = None

    def run(self) -> Selection:
        tried = 0
        while self._position < len(self._needs):
            need = self._needs[self._position]
            self._position += 1
            if self._is_met(need):
                continue
            choice = _Choice(
                self._options(need), need, len(self._chosen), len(self._needs), self._position
            )
            while not self._take(choice):
                tried += 1
                if not self._choices or tried > _MAX_CHOICES:
                    assert self._problem is not None
                    raise self._problem
                choice = self._return()
        return self._chosen

    def _is_met(self, need: _Need) -> bool:
        return any(
            relation.name in self._without or self._chosen.matching(relation)
            for relation in need.alternatives
        )

    def _options(self, need: _Need) -> Iterator[Package]:
        found = False
        for relation in need.alternatives:
            for package in self._index.matching(relation):
                found = True
                yield package
        if not found:
            self._note(_missing(need))

    def _take(self, choice: _Choice) -> bool:
        """Choose the next option of `choice` that fits; False where none does."""
        for package in choice.options:
            obstacle = self._obstacle(package)
            if obstacle is not None:
                self._note(_conflict(package, obstacle, choice.need.asker))
                continue
            self._choices.append(choice)
            self._chosen.add(package)
            self._needs.extend(_Need(alternatives, package) for alternatives in package.depends)
            if self._recommends:
                self._needs.extend(
                    _Need(alternatives, package)
                    for alternatives in package.recommends
                    if any(any(self._index.matching(relation)) for relation in alternatives)
                )
            return True
        return False

    def _return(self) -> _Choice:
        """Take the latest choice back."""
        choice = self._choices.pop()
        self._chosen.keep(choice.chosen)
        del self._needs[choice.needs :]
        self._position = choice.position
        return choice

    def _obstacle(self, package: Package) -> Package | None:
        """A chosen package that cannot be installed together with `package`."""
        if other := self._chosen.get(package.name):
            return other
        for relation in package.excludes:
            for other in self._chosen.matching(relation):
                return other
        for other in self._chosen:
            if any(package.matches(r, self._index.architecture) for r in other.excludes):
                return other
        return None

    def _note(self, problem: WherryError) -> None:
        """Keep the first problem: later ones are the search's own doing."""
        if self._problem is None:
            self._problem = problem


def resolve(
    index: PackageIndex,
    base: Iterable[Package],
    include: Sequence[str] = (),
    *,
    recommends: bool = False,
    without: Collection[str] = (),
) -> list[Package]:
    """`base`, the packages named in `include` and all they need, each after what it needs.

    A name may pin a version: `name=version`. Nobody gets what is named in `without`.
    Raises NotFound or Conflict with the reason.
    """
    wanted = [_requested(name) for name in include]
    needs = [_Need((Relation(package.name),), None) for package in base]
    needs += [_Need((relation,), None) for relation in wanted]
    # A pinned version has to be chosen before somebody else's need chooses another.
    needs.sort(key=lambda need: need.alternatives[0].operator is None)
    return in_order(_Search(index, needs, recommends, without).run())


def _requested(text: str) -> Relation:
    name, equals, version = text.partition("=")
    return Relation(name, "", "=", version) if equals else Relation(name)


def in_order(selection: Selection) -> list[Package]:
    """The packages, each after those that it depends on; a cycle is cut where it is met first."""
    ordered: dict[str, Package] = {}
    begun: set[str] = set()
    # Depth first without recursion: a package comes back, marked, after what it needs.
    stack = [(package, False) for package in sorted(selection, key=_first_last)]
    while stack:
        package, needs_done = stack.pop()
        if needs_done:
            ordered[package.name] = package
        elif package.name not in begun:
            begun.add(package.name)
            stack.append((package, True))
            stack.extend(
                (needed, False)
                for needed in reversed(selection.needs(package.depends))
                if needed.name not in begun
            )
    return list(ordered.values())


def _first_last(package: Package) -> tuple[int, tuple[int, ...]]:
    """Sorts for a stack: essential packages on top, then by name."""
    return (1 if package.essential else 0, tuple(-ord(c) for c in package.name))


def _missing(need: _Need) -> NotFound:
    wanted = " | ".join(map(str, need.alternatives))
    if need.asker is None:
        return NotFound(f"no package {wanted} in the archive", hint="is its component among them?")
    return NotFound(f"{need.asker} needs {wanted}, which no package in the archive provides")


def _conflict(package: Package, obstacle: Package, asker: Package | None) -> Conflict:
    by = f", which {asker} needs," if asker else ""
    if package.name == obstacle.name:
        return Conflict(f"{package}{by} is wanted, but {obstacle} is chosen already")
    return Conflict(f"{package}{by} cannot be installed together with {obstacle}")
