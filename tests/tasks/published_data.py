"""Tiny folders in the formats in which the Long Range Arena's data were published."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def write_reviews(folder: Path, num: int = 12) -> Path:
    """Write aclImdb/{train,test}/{neg,pos}/<id>_<rating>.txt, with one review in both splits."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label, word in (("neg", "dull"), ("pos", "fine")):
            (folder / split / label).mkdir(parents=True)
            for number in range(num):
                text = " ".join(generator.choice([word, "a", "film", "of", "né"], size=5 + 7 * number))
                (folder / split / label / f"{number}_1.txt").write_text(text, encoding="utf-8")
    (folder / "train" / "pos" / "99_9.txt").write_bytes((folder / "test" / "pos" / "3_1.txt").read_bytes())
    (folder / "train" / "urls_neg.txt").write_text("http://example.org")
    return folder


def write_pairs(folder: Path, num: int = 30) -> Path:
    """Write new_aan_pairs.{train,eval,test}.tsv: label, id1, id2, text1, text2."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(1)
    for split in ("train", "eval", "test"):
        lines = []
        for number in range(num):
            texts = [" ".join(generator.choice(["parse", "tree", "word"], size=size)) for size in (4 + number, 30)]
            lines.append("\t".join([f"{number % 2}.0", f"P{number}", f"Q{number}", *texts]) + "\n")
        (folder / f"new_aan_pairs.{split}.tsv").write_text("".join(lines))
    return folder


def pictures(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return colours [num, 3072] and classes [num] in the format of CIFAR-10."""
    generator = np.random.default_rng(seed)
    return generator.integers(256, size=(num, 3072), dtype=np.uint8), np.arange(num) % 10


def write_cifar(folder: Path, num: int = 8) -> Path:
    """Write cifar-10-batches-py/{data_batch_1..5,test_batch}: pickled dictionaries, bytes keys."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        data, labels = pictures(num, seed)
        content = {
            b"batch_label": name.encode(),
            b"labels": labels.tolist(),
            b"data": data,
            b"filenames": [b"cat.png"] * num,
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def write_cifar_binary(folder: Path, num: int = 8) -> Path:
    """Write cifar-10-batches-bin/*.bin: for each picture a byte of class and 3072 of colours."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        data, labels = pictures(num, seed)
        records = np.concatenate([labels[:, None].astype(np.uint8), data], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def write_pathfinder(folder: Path, num: int = 60) -> Path:
    """Write curv_contour_length_14: metadata as text and string arrays, and one empty picture."""
    generator = np.random.default_rng(2)
    (folder / "metadata").mkdir(parents=True)
    for part in range(2):
        rows = []
        (folder / "imgs" / str(part)).mkdir(parents=True)
        for number in range(num // 2):
            grey = generator.integers(256, size=(32, 32), dtype=np.uint8)
            Image.fromarray(grey).save(folder / "imgs" / str(part) / f"sample_{number}.png")
            rows.append([f"imgs/{part}", f"sample_{number}.png", str(number), str(number % 2), "1.8", "14", "2"])
        if part == 0:
            lines = "".join(" ".join(row) + "\n" for row in rows)
            (folder / "metadata" / "0.npy").write_text(lines)
        else:
            np.save(folder / "metadata" / "1.npy", np.array(rows))
    (folder / "imgs" / "0" / "sample_0.png").write_bytes(b"")
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "lra_text": write_reviews,
    "lra_retrieval": write_pairs,
    "lra_image": write_cifar,
    "lra_pathfinder": write_pathfinder,
}
