"""From text to tokens and back: bytes, a byte-pair encoding trained on the corpus, or a Hugging
Face tokeniser file."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8

from hybridlab.errors import ConfigError

FILE = "tokenizer.json"


@runtime_checkable
class Tokeniser(Protocol):
    """A lossless map from documents to tokens: the bytes of the tokens, concatenated, are the
    document.

    `begin` precedes every document, so that its first token is predicted too; it is the last id of
    the vocabulary and never a target. `bytes_of_token` is the number of bytes of text that each id
    stands for, 0 for special ones.
    """

    unit: str  # byte | token
    begin: int
    bytes_of_token: Int64[np.ndarray, " vocabulary"]

    def tokens(self, text: bytes) -> np.ndarray:
        """Return the tokens of a document, without `begin`."""
        ...

    def text(self, tokens: np.ndarray) -> UInt8[np.ndarray, " bytes"]:
        """Return the bytes that the tokens stand for."""
        ...


class Bytes:
    """The tokeniser whose tokens are bytes."""

    unit = "byte"
    begin = 256
    bytes_of_token = (np.arange(257) < 256).astype(np.int64)

    def tokens(self, text: bytes) -> np.ndarray:
        """Return the bytes of a document as numbers."""
        return np.frombuffer(text, dtype=np.uint8)

    def text(self, tokens: np.ndarray) -> UInt8[np.ndarray, " bytes"]:
        """Return the tokens as bytes."""
        return tokens.astype(np.uint8)


class Subwords:
    """A tokeniser of Hugging Face's `tokenizers`, given as the text of its tokenizer.json.

    Special tokens are neither added nor recognised in a text, and nothing is truncated. `name` is
    the user's setting, for messages.
    """

    unit = "token"

    def __init__(self, specification: str, name: str):
        self.name = name
        self.specification = specification
        library = _library(name)
        try:
            self._tokenizer = library.Tokenizer.from_str(specification)
        except Exception as error:  # the library raises nothing more specific
            raise ConfigError(f"{name}: not a {FILE} of Hugging Face ({str(error).splitlines()[0]})") from error
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._bytes = _bytes_of_tokens(self._tokenizer, json.loads(specification))
        self.begin = len(self._bytes)
        self.bytes_of_token = np.array([*map(len, self._bytes), 0], dtype=np.int64)

    def tokens(self, text: bytes) -> np.ndarray:
        """Return the tokens of a text; raise a ConfigError unless they spell it, up to a space in
        front."""
        ids = self._tokenizer.encode(text.decode(), add_special_tokens=False).ids
        if max(ids, default=-1) >= self.begin:
            raise ConfigError(f"{self.name}: returns the id {max(ids)}, but its vocabulary has {self.begin} ids")
        spelt = b"".join(map(self._bytes.__getitem__, ids))
        if spelt not in (text, b" " + text):
            at = next((n for n, (one, other) in enumerate(zip(text, spelt, strict=False)) if one != other), len(spelt))
            lost = text[max(at - 10, 0) : at + 10].decode(errors="replace")
            raise ConfigError(f"{self.name}: loses text, which makes bits per byte meaningless, e.g. at {lost!r}")
        return np.array(ids, dtype=np.int64)

    def text(self, tokens: np.ndarray) -> UInt8[np.ndarray, " bytes"]:
        """Return the bytes that the tokens stand for, concatenated."""
        return np.frombuffer(b"".join(map(self._bytes.__getitem__, tokens.tolist())), dtype=np.uint8)


def identity(setting: str | Mapping[str, Any]) -> str:
    """Validate the setting `bytes`, `{bpe: <vocabulary>}` or a path; return what identifies the
    tokeniser."""
    if setting == "bytes":
        return "bytes"
    if isinstance(setting, Mapping):
        size = setting.get("bpe")
        if set(setting) != {"bpe"} or type(size) is not int or size <= 256:
            raise ConfigError(f"{named(setting)}: must be {{bpe: n}} with a whole number n above 256")
        return f"bpe {size}"
    return hashlib.sha256(_specification(setting).encode()).hexdigest()


def named(setting: str | Mapping[str, Any]) -> str:
    """Return the setting as it is written on the command line."""
    if isinstance(setting, Mapping):
        return " ".join(f"tokeniser.{key}={value}" for key, value in setting.items()) or "tokeniser={}"
    return f"tokeniser={setting}"


def make_tokeniser(setting: str | Mapping[str, Any], training: Iterable[bytes]) -> Bytes | Subwords:
    """Build the tokeniser of a setting that `identity` accepts; a byte-pair encoding is trained on
    the texts `training`."""
    if setting == "bytes":
        return Bytes()
    if isinstance(setting, Mapping):
        return Subwords(_trained(setting["bpe"], training), named(setting))
    return Subwords(_specification(setting), named(setting))


def _specification(path: str) -> str:
    file = Path(path).expanduser()
    try:
        return (file / FILE if file.is_dir() else file).read_text(encoding="utf-8")
    except OSError as error:
        allowed = f"`bytes`, {{bpe: n}}, or the path of a {FILE}"
        raise ConfigError(f"tokeniser={path}: cannot be read ({error.strerror}); must be {allowed}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"tokeniser={path}: not a {FILE} of Hugging Face (not UTF-8)") from error


def _trained(size: int, training: Iterable[bytes]) -> str:
    """Train a byte-level byte-pair encoding (Sennrich et al., arXiv:1508.07909; on bytes, Radford
    et al. 2019)."""
    library = _library(f"tokeniser.bpe={size}")
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((text.decode() for text in training), trainer)
    return tokenizer.to_str()


def _library(name: str) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError(f"{name}: needs `tokenizers`: pip install 'hybridlab[bpe]'") from error
    return tokenizers


def _bytes_of_tokens(tokenizer: Any, specification: dict[str, Any]) -> list[bytes]:
    """Return the bytes of text that each id stands for; none for special tokens and ids without a
    token."""
    decoder = json.dumps(specification.get("decoder"))
    spelling = _byte_level if '"ByteLevel"' in decoder else _with_word_marks
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    table = [b""] * (1 + max(vocabulary.values(), default=-1))
    for token, index in vocabulary.items():
        table[index] = spelling(token)
    for index, added in tokenizer.get_added_tokens_decoder().items():
        table[index] = b"" if added.special else added.content.encode()
    return table


def _byte_level(token: str) -> bytes:
    """Return the bytes of a token in GPT-2's alphabet, where every byte is a printable
    character."""
    return b"".join(_BYTE_OF.get(character) or character.encode() for character in token)


def _with_word_marks(token: str) -> bytes:
    """Return the bytes of a token in SentencePiece's spelling: ▁ is a space, <0x0A> a byte."""
    if byte := re.fullmatch("<0x([0-9A-F]{2})>", token):
        return bytes.fromhex(byte[1])
    return token.replace("▁", " ").encode()


_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_BYTE_OF = {chr(byte): bytes([byte]) for byte in _PRINTABLE}
_BYTE_OF |= {chr(256 + index): bytes([byte]) for index, byte in enumerate(_OTHERS)}
