"""Retrieval of the Long Range Arena: does one paper cite the other? Both are read byte by byte."""

from pathlib import Path

import numpy as np
from jaxtyping import Int64

from hybridlab.errors import ConfigError
from hybridlab.stack.readout import Readout
from hybridlab.tasks.file_digests import Version, file_digests
from hybridlab.tasks.lra.classification import Example, LazyExamples, Stored
from hybridlab.tasks.lra.published_folder import published_folder

FILES = {
    "training": "new_aan_pairs.train.tsv",
    "validation": "new_aan_pairs.eval.tsv",
    "test": "new_aan_pairs.test.tsv",
}
_FIELDS = "label, id1, id2, text1, text2"


class LRARetrieval(Stored):
    """Predict whether a citation links two papers of the ACL Anthology Network (1) or not (0).

    A sequence holds up to `length` / 2 bytes of each paper, as documents that never see one
    another; the stack encodes them apart and compares their means. `path` is the folder with the
    published .tsv files, which define the splits and have one pair a line.
    """

    predicts = "whether one paper cites the other, once a sequence, from the bytes of both, encoded apart"
    source = "ACL Anthology Network, Radev et al. 2013, as in the Long Range Arena, arXiv:2011.04006"
    unit = "byte"
    vocabulary = 257  # the bytes and padding
    padding = 256
    classes = 2
    readout = Readout.PAIR_OF_MEANS

    def __init__(self, *, seed: int, path: str, length: int = 8000, batch: int = 32) -> None:
        super().__init__(seed=seed, length=length, batch=batch)
        what = "the folder tsv_data of the Long Range Arena's archive (lra_release.gz)"
        folder = published_folder(path, *FILES.values(), what=what)
        self.splits = {name: _Pairs(folder / file) for name, file in FILES.items()}


class _Pairs(LazyExamples):
    """The lines of a .tsv file of gigabytes; only their offsets are kept in memory."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.version = Version.of(file)
        starts, labels = [0], []
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                label = _label(line)
                if line.count(b"\t") != 4 or label is None:
                    raise ConfigError(
                        f"path={file.parent}: line {number} of {file.name} is not {_FIELDS}, separated by tabs"
                    )
                starts.append(starts[-1] + len(line))
                labels.append(label)
        if len(starts) == 1:
            raise ConfigError(f"path={file.parent}: {file.name} is empty")
        self.starts = np.array(starts)
        self._labels = np.array(labels)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def digest(self) -> str:
        """The digest of the file."""
        (digest,) = file_digests([self.file])
        self._check()
        return digest

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """The label of each line."""
        return self._labels

    def read(self, index: int) -> Example:
        """Read the texts of both papers."""
        self._check()
        with self.file.open("rb") as lines:
            lines.seek(self.starts[index])
            line = lines.readline().rstrip(b"\r\n")
        texts = line.split(b"\t")[3:]
        return Example(tuple(np.frombuffer(text, np.uint8) for text in texts), _label(line) or 0)

    def _check(self) -> None:
        if Version.of(self.file) != self.version:
            raise ConfigError(f"path={self.file.parent}: {self.file.name} changed while it was read; start again")


def _label(line: bytes) -> int | None:
    """Return the label, 0 or 1 (written 0.0 or 1.0 in the files), or None for anything else."""
    return {b"0": 0, b"1": 1, b"0.0": 0, b"1.0": 1}.get(line.partition(b"\t")[0])
