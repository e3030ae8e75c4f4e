"""What the names in a container mean: the layouts of face data sets, recognised by looking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from mien.data.containers import Container, Member, images_in
from mien.data.pack import Labels
from mien.data.source import Listing, stamp_of
from mien.errors import Untrusted


def recognise(container: Container) -> Listing:
    """The listing of a container, by the first layout that it fits."""
    members = container.members()
    by_name = {PurePosixPath(member.name).name: member for member in members}
    images, others = images_in(members)
    if "list_attr_celeba.txt" in by_name:
        return celeba(container, images, others, by_name)
    return Listing(
        layout="folder",
        names=[member.name for member in images],
        others=others,
        stamp=stamp_of(images),
    )


def celeba(
    container: Container, images: Sequence[Member], others: dict[str, int], by_name: dict[str, Member]
) -> Listing:
    """CelebA: `list_attr_celeba.txt` beside the pictures, and the other lists when they are there."""
    rows, label_names, labels = read_attributes(container.read(by_name["list_attr_celeba.txt"].name))
    known = {name: row for row, name in enumerate(rows)}
    listed = [image for image in images if PurePosixPath(image.name).name in known]
    order = [known[PurePosixPath(image.name).name] for image in listed]
    remarks = []
    if len(listed) < len(images):
        remarks.append(f"{len(images) - len(listed):,} pictures are not in list_attr_celeba.txt and were left aside.")
    if len(listed) < len(rows):
        remarks.append(f"{len(rows) - len(listed):,} lines of list_attr_celeba.txt have no picture.")
    base_names = [PurePosixPath(image.name).name for image in listed]
    identities = read_pairs(container, by_name, "identity_CelebA.txt")
    partition = read_pairs(container, by_name, "list_eval_partition.txt")
    return Listing(
        layout="celeba",
        names=[image.name for image in listed],
        label_names=label_names,
        labels=labels[order],
        groups=[identities.get(name, "") for name in base_names] if identities else None,
        parts=[PARTS.get(partition.get(name, ""), "") for name in base_names] if partition else None,
        crop="celeba-148",
        others=others,
        remarks=remarks,
        stamp=stamp_of([*listed, labels.tobytes()]),
    )


PARTS = {"0": "train", "1": "val", "2": "test"}


def read_attributes(data: bytes) -> tuple[list[str], tuple[str, ...], Labels]:
    """CelebA's attribute list: a count, a line of names, then a file name and 1 or -1 for each attribute."""
    try:
        count, header, *lines = data.decode("utf-8").splitlines()
        label_names = tuple(header.split())
        split = [line.split(maxsplit=1) for line in lines if line.strip()]
        values = np.array(" ".join(rest for _, rest in split).split(), dtype=np.float32)
        labels = np.where(values == 1, 1, np.where(values == -1, 0, np.nan)).astype(np.float32)
        if len(split) != int(count):
            raise ValueError(f"the first line promises {count} rows, there are {len(split)}")
        return [name for name, _ in split], label_names, labels.reshape(len(split), len(label_names))
    except ValueError as error:
        raise Untrusted("list_attr_celeba.txt does not parse.", str(error), "Download it again.") from error


def read_pairs(container: Container, by_name: dict[str, Member], name: str) -> dict[str, str]:
    """A list with a file name and one word a line; empty when it is not there."""
    if name not in by_name:
        return {}
    text = container.read(by_name[name].name).decode("utf-8", errors="replace")
    return {words[0]: words[1] for line in text.splitlines() if len(words := line.split()) == 2}
