"""Pathfinder of the Long Range Arena: does a dashed path join two marks of a small picture, read
pixel by pixel?"""

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from hybridlab.errors import ConfigError
from hybridlab.tasks.cache import digest_of
from hybridlab.tasks.file_digests import Version, file_digests
from hybridlab.tasks.lra.classification import Example, LazyExamples, Stored
from hybridlab.tasks.lra.published_folder import published_folder

PIXELS = 32 * 32  # of a picture
_WHAT = (
    "the folder of one difficulty, such as pathfinder32/curv_contour_length_14 of the Long Range Arena's archive "
    "(lra_release.gz)"
)


class LRAPathfinder(Stored):
    """Predict whether a path joins the two marks of a picture (1) or not (0), from its 1024 grey
    values, a token each.

    `path` is the folder of one difficulty: curv_baseline, curv_contour_length_9 or
    curv_contour_length_14, the hardest. Each line of its metadata names a picture's folder, its
    file and, fourth, its class. Validation and test get a tenth of the pictures each, chosen by a
    hash of their names. Pictures with empty files are left out, as in the Long Range Arena.
    """

    predicts = "whether a path joins the two marks, once a sequence, from the picture's grey values"
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
        pictures = [_Picture(name, label, _version(folder, name)) for name, label in dict(listed).items()]
        pictures = [picture for picture in pictures if picture.version.size]
        pictures.sort(key=lambda picture: sha256(picture.name.encode()).digest())
        num_held_out = round(0.1 * len(pictures))
        if not num_held_out:
            raise ConfigError(f"path={path}: {len(pictures)} pictures are too few to split")
        self.splits = {
            "training": _Pictures(folder, pictures[2 * num_held_out :]),
            "validation": _Pictures(folder, pictures[:num_held_out]),
            "test": _Pictures(folder, pictures[num_held_out : 2 * num_held_out]),
        }


def _entries(file: Path, folder: Path) -> list[tuple[str, int]]:
    """Return the pictures that a metadata file lists, with their classes.

    The archive's files are text, although their names end in .npy; the generator of the pictures
    writes string arrays.
    """
    content = file.read_bytes()
    if content.startswith(b"\x93NUMPY"):
        lines = [[str(field) for field in line] for line in np.load(file, allow_pickle=False)]
    else:
        lines = [line.split(" ") for line in content.decode(errors="replace").splitlines()]
    try:
        return [(f"{line[0]}/{line[1]}", ("0", "1").index(line[3])) for line in lines]
    except (IndexError, ValueError):
        raise ConfigError(
            f"path={folder}: metadata/{file.name} has a line that is not `folder file number 0|1 ...`"
        ) from None


class _Picture(NamedTuple):
    name: str
    label: int
    version: Version


def _version(folder: Path, name: str) -> Version:
    try:
        return Version.of(folder / name)
    except OSError:
        raise ConfigError(f"path={folder}: the metadata name {name}, but there is no such picture") from None


class _Pictures(LazyExamples):
    """Pictures in their files."""

    def __init__(self, folder: Path, pictures: list[_Picture]) -> None:
        self.folder = folder
        self.listed = [(picture.name, picture.label) for picture in pictures]
        self._versions = [picture.version for picture in pictures]

    def __len__(self) -> int:
        return len(self.listed)

    @property
    def digest(self) -> str:
        """The digest of names, classes and files."""
        digests = file_digests([self.folder / name for name, _ in self.listed])
        for index in range(len(self)):
            self._check(index)
        return digest_of(list(zip(self.listed, digests, strict=True)))

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """The class of each picture, as the metadata have it."""
        return np.array([label for _, label in self.listed])

    def read(self, index: int) -> Example:
        """Read the grey values of a picture."""
        from PIL import Image, UnidentifiedImageError

        name, label = self.listed[index]
        self._check(index)
        try:
            with Image.open(self.folder / name) as picture:
                grey = np.asarray(picture.convert("L")).flatten()
        except (UnidentifiedImageError, OSError) as error:
            raise ConfigError(f"path={self.folder}: {name} cannot be read as a picture") from error
        if len(grey) != PIXELS:
            raise ConfigError(f"path={self.folder}: {name} has {len(grey)} pixels; 32 x 32 are needed")
        return Example((grey,), label)

    def _check(self, index: int) -> None:
        name = self.listed[index][0]
        if _version(self.folder, name) != self._versions[index]:
            raise ConfigError(f"path={self.folder}: {name} changed while it was read; start again")
