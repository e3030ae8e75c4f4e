"""What a container holds, as the layouts look at it: pictures, and the files beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mien.data.archives import Container, Member, base_name, count_suffixes, images_in
from mien.data.name_index import NameIndex
from mien.data.readers import UnreadableFile
from mien.data.source import Listing, stamp_of


@dataclass(frozen=True)
class Contents:
    """A container's members: pictures, and others."""

    container: Container
    images: list[Member]
    others: list[Member]

    @classmethod
    def of(cls, container: Container) -> Contents:
        return cls(container, *images_in(container, container.members()))

    @cached_property
    def names(self) -> list[str]:
        return [image.name for image in self.images]

    @cached_property
    def index(self) -> NameIndex:
        return NameIndex(self.names, self.container.path.resolve().name)

    @cached_property
    def paths(self) -> list[tuple[str, ...]]:
        """The images' folders and names, without the folders that all of them share."""
        return without_shared([tuple(name.split("/")) for name in self.names])

    def find(self, *names: str) -> Member | None:
        """The first of some files, by its name without folders; of two, the one less deep."""
        for name in names:
            found = [member for member in self.others if base_name(member.name) == name]
            if found:
                return min(found, key=lambda member: member.name.count("/"))
        return None

    def read(self, member: Member) -> bytes:
        """A file's bytes, none for an empty file. Raises UnreadableFile."""
        try:
            return self.container.read(member.name)
        except UnreadableFile as error:
            if str(error) == "empty":
                return b""
            raise

    def listing(self, layout: str) -> Listing:
        """Every image, without labels."""
        return Listing(
            layout=layout, names=self.names, other_files=count_suffixes(self.others), stamp=stamp_of(self.images)
        )


def without_shared(paths: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Paths without the folders at their beginning that all of them share."""
    shared = 0
    while paths and all(len(path) > shared + 1 and path[shared] == paths[0][shared] for path in paths):
        shared += 1
    return [path[shared:] for path in paths]
