"""Image of the Long Range Arena: the class of a small picture, read pixel by pixel."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from hybridlab.errors import ConfigError
from hybridlab.tasks.lra.classification import Example, Stored
from hybridlab.tasks.lra.published_folder import published_folder

PIXELS = 32 * 32  # of a picture
GREY = (0.2989, 0.5870, 0.1140)  # of red, green and blue, as in ITU-R BT.601
_WHAT = (
    "the folder cifar-10-batches-py or cifar-10-batches-bin of CIFAR-10 "
    "(cifar-10-python.tar.gz, cifar-10-binary.tar.gz)"
)


class LRAImage(Stored):
    """Predict which of CIFAR-10's ten classes a picture belongs to, from its 1024 grey values, row
    by row, a token each.

    `path` is the folder of the Python or the binary version. The last tenth of its training
    pictures is the validation split, as in the Long Range Arena.
    """

    predicts = "the class of the picture, once a sequence, from its grey values"
    source = "CIFAR-10, Krizhevsky 2009, as in the Long Range Arena, arXiv:2011.04006"
    unit = "symbol"
    vocabulary = 256
    classes = 10

    def __init__(self, *, seed: int, path: str, length: int = PIXELS, batch: int = 32) -> None:
        super().__init__(seed=seed, length=length, batch=batch)
        if length > PIXELS:
            raise ConfigError(f"length={length}: a picture has {PIXELS} pixels")
        ending = ".bin" if Path(str(path)).expanduser().joinpath("test_batch.bin").exists() else ""
        names = [f"data_batch_{number}{ending}" for number in range(1, 6)]
        folder = published_folder(path, *names, f"test_batch{ending}", what=_WHAT)
        read = _read_binary if ending else _read_pickle
        try:
            training = [example for name in names for example in _examples(*read(folder / name))]
            test = _examples(*read(folder / f"test_batch{ending}"))
        except (ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise ConfigError(f"path={path}: a batch is damaged: {error}") from error
        num_training = round(0.9 * len(training))
        self.splits = {"training": training[:num_training], "validation": training[num_training:], "test": test}


def _examples(pictures: UInt8[np.ndarray, "n values"], labels: Any) -> list[Example]:
    """Return grey pictures and their labels from pictures with all red values first, then green,
    then blue."""
    grey = np.rint(np.tensordot(GREY, pictures.reshape(-1, 3, PIXELS), axes=(0, 1))).astype(np.uint8)
    return [Example((picture,), int(label)) for picture, label in zip(grey, labels, strict=True)]


def _read_binary(file: Path) -> tuple[np.ndarray, np.ndarray]:
    records = np.fromfile(file, np.uint8).reshape(-1, 1 + 3 * PIXELS)
    return records[:, 1:], records[:, 0]


def _read_pickle(file: Path) -> tuple[np.ndarray, Any]:
    with file.open("rb") as stream:
        batch = _ArraysOnly(stream, encoding="bytes").load()
    return batch[b"data"], batch[b"labels"]


class _ArraysOnly(pickle.Unpickler):
    """An unpickler of NumPy arrays that runs nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few functions that rebuild an array; refuse all others."""
        # The published files name NumPy's modules as they were in 2009.
        allowed = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
        if module.partition(".")[0] == "numpy" and name in allowed:
            return allowed[name]
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
