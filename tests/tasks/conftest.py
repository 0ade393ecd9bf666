from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hybridlab.tasks.text.documents import Documents

LENGTHS = (1, 20, 33, 40, 64, 65, 90, 120, 121, 150, 200, 700, 800)


@pytest.fixture(scope="session")
def texts() -> list[bytes]:
    """Distinct documents of few symbols, some of which have several bytes."""
    generator = np.random.default_rng(7)
    drawn = ["".join(generator.choice(list("\t abcé€"), size=length)).encode() for length in LENGTHS]
    return [
        text[:length].decode(errors="ignore").encode().ljust(length)
        for text, length in zip(drawn, LENGTHS, strict=True)
    ]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, texts: list[bytes]) -> Path:
    """A folder that holds `texts`, some of them in a subfolder."""
    top = tmp_path_factory.mktemp("documents")
    (top / "deeper").mkdir()
    for index, text in enumerate(texts):
        (top / ("deeper" if index % 2 else ".") / f"{index}.txt").write_bytes(text)
    return top


@pytest.fixture(scope="session")
def documents(folder: Path) -> Callable[..., Documents]:
    """Build the task on `folder`, with short sequences unless set otherwise."""

    def make(**settings) -> Documents:
        return Documents(**{"path": str(folder), "seed": 0, "length": 16, "batch": 4} | settings)

    return make


@pytest.fixture(scope="session")
def task(documents: Callable[..., Documents]) -> Documents:
    return documents()
