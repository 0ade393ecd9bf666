"""Pathfinder of the Long Range Arena: does a dashed line join two marks in a small picture, read pixel by pixel."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import overload

import numpy as np

from hybridlab.errors import ConfigError
from hybridlab.tasks.lra.classification import Example, Stored
from hybridlab.tasks.lra.published_folder import published_folder

PIXELS = 32 * 32  # of a picture
_WHAT = "a folder of a difficulty, as pathfinder32/curv_contour_length_14 of the Long Range Arena's archive (lra_release.gz)"


class LRAPathfinder(Stored):
    """Tell whether a path joins the two marks of a picture (1) or not (0), from its 1024 grey values, a token each.

    `path` is the folder of one difficulty: curv_baseline, curv_contour_length_9 or curv_contour_length_14, the hardest. Each
    line of its metadata names a picture's folder, its file and, fourth, its class. A tenth of the pictures each, by a hash of
    their names, is for validation and for testing. Pictures whose files are empty are left out, as there.
    """

    predicts = "whether a path joins the two marks, once a row, from the picture's grey values"
    source = "Pathfinder, arXiv:1805.08315, as in the Long Range Arena, arXiv:2011.04006"
    unit = "symbol"
    vocabulary = 256
    classes = 2

    def __init__(self, *, seed: int, path: str, length: int = PIXELS, batch: int = 32) -> None:
        super().__init__(seed=seed, length=length, batch=batch)
        if length > PIXELS:
            raise ConfigError(f"length={length}: a picture has {PIXELS} pixels")
        folder = published_folder(path, "metadata", "imgs", what=_WHAT)
        listed = [entry for file in sorted((folder / "metadata").iterdir()) for entry in _entries(file, folder)]
        listed = [(name, label) for name, label in dict(listed).items() if _size(folder, name)]
        listed.sort(key=lambda entry: sha256(entry[0].encode()).digest())
        num_held_out = round(0.1 * len(listed))
        if not num_held_out:
            raise ConfigError(f"path={path}: {len(listed)} pictures are too few to be split")
        self.splits = {
            "training": _Pictures(folder, listed[2 * num_held_out :]),
            "validation": _Pictures(folder, listed[:num_held_out]),
            "test": _Pictures(folder, listed[num_held_out : 2 * num_held_out]),
        }


def _entries(file: Path, folder: Path) -> list[tuple[str, int]]:
    """Return the pictures that one file of metadata lists, with their classes.

    The archive's files are lines of text, although they end in .npy; the generator of the pictures writes arrays of strings.
    """
    content = file.read_bytes()
    if content.startswith(b"\x93NUMPY"):
        rows = [[str(field) for field in row] for row in np.load(file, allow_pickle=False)]
    else:
        rows = [line.split(" ") for line in content.decode(errors="replace").splitlines()]
    try:
        return [(f"{row[0]}/{row[1]}", ("0", "1").index(row[3])) for row in rows]
    except (IndexError, ValueError):
        raise ConfigError(
            f"path={folder}: metadata/{file.name} has a line that is not `folder file number 0|1 ...`"
        ) from None


def _size(folder: Path, name: str) -> int:
    try:
        return (folder / name).stat().st_size
    except OSError:
        raise ConfigError(f"path={folder}: the metadata name {name}, and there is no such picture") from None


class _Pictures(Sequence[Example]):
    """Pictures that stay in their files until they are asked for."""

    def __init__(self, folder: Path, listed: list[tuple[str, int]]) -> None:
        self.folder = folder
        self.listed = listed

    def __len__(self) -> int:
        return len(self.listed)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        from PIL import Image, UnidentifiedImageError

        name, label = self.listed[index]
        try:
            with Image.open(self.folder / name) as picture:
                grey = np.asarray(picture.convert("L")).flatten()
        except (UnidentifiedImageError, OSError) as error:
            raise ConfigError(f"path={self.folder}: {name} is no picture that can be read") from error
        if len(grey) != PIXELS:
            raise ConfigError(f"path={self.folder}: {name} has {len(grey)} pixels, and 32 x 32 are needed")
        return Example((grey,), label)
