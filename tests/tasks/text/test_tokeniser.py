"""Tokens spell the text that they were made of, byte for byte, or are refused."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from hybridlab.errors import ConfigError
from hybridlab.tasks.text.tokeniser import Bytes, Subwords, identity, make_tokeniser

TRAINING = [b"the state of the union is strong", "naïve – 語".encode()] * 3


@pytest.fixture(scope="module")
def bpe() -> Subwords:
    return make_tokeniser({"bpe": 280}, TRAINING)


def spelt(tokeniser, text: bytes) -> bytes:
    return tokeniser.text(tokeniser.tokens(text)).tobytes()


def word_level(vocabulary: dict[str, int], **parts) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


@given(st.text(max_size=40).map(str.encode))
@settings(max_examples=40)
def test_any_text_is_spelt_again_and_its_bytes_are_counted(bpe: Subwords, text: bytes):
    for tokeniser in (Bytes(), bpe):
        tokens = tokeniser.tokens(text)
        assert spelt(tokeniser, text) == text
        assert tokeniser.bytes_of_token[tokens.astype(int)].sum() == len(text)


def test_a_byte_pair_encoding_has_the_size_asked_for_and_begin(bpe: Subwords):
    assert bpe.begin == 280
    assert len(bpe.bytes_of_token) == 281
    assert bpe.bytes_of_token[280] == 0
    assert bpe.bytes_of_token[:280].min() == 1
    assert len(bpe.tokens(TRAINING[0])) < len(TRAINING[0])
    assert make_tokeniser({"bpe": 280}, TRAINING).specification == bpe.specification
    assert make_tokeniser({"bpe": 280}, [b"other text, other merges"]).specification != bpe.specification


def test_a_file_of_hugging_face_is_read_and_its_special_tokens_are_not_found_in_texts(bpe: Subwords, tmp_path: Path):
    tokenizer = Tokenizer.from_str(bpe.specification)
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.add_tokens(["union is"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 280)])
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        tokeniser = make_tokeniser(str(path), [])
        text = b"<s>the union is here<s>"
        assert spelt(tokeniser, text) == text
        assert 280 not in tokeniser.tokens(text)
        assert 281 in tokeniser.tokens(text)
        assert tokeniser.bytes_of_token[[280, 281, 282]].tolist() == [0, 8, 0]


def test_word_marks_and_byte_tokens_are_spelt(tmp_path: Path):
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁": 256, "a": 257, "b": 258, "▁b": 259}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "b")], byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokeniser = make_tokeniser(str(tmp_path), [])
    assert spelt(tokeniser, "a b é".encode()) == "a b é".encode()
    assert tokeniser.tokens(b"a b").tolist() == [257, 259]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    prepended = Subwords(tokenizer.to_str(), "some")
    assert spelt(prepended, b"b a") == b" b a"


def test_ids_with_holes_are_below_the_vocabulary():
    tokeniser = Subwords(word_level({"?": 0, "a": 7}).to_str(), "some")
    assert tokeniser.tokens(b"a").tolist() == [7]
    assert tokeniser.bytes_of_token.tolist() == [1, 0, 0, 0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("tokenizer", "text", "lost"),
    [
        (word_level({"?": 0, "a": 1}, normalizer=normalizers.Lowercase()), b"A", "'A'"),
        (word_level({"?": 0, "a": 1}), b"b", "'b'"),
        (word_level({"?": 0, "a": 1}, pre_tokenizer=pre_tokenizers.Whitespace()), b"a a a a", "'a a a a'"),
    ],
    ids=["lower case", "unknown", "white space"],
)
def test_a_tokeniser_that_loses_text_is_refused(tokenizer: Tokenizer, text: bytes, lost: str):
    with pytest.raises(ConfigError) as caught:
        Subwords(tokenizer.to_str(), "tokeniser=some").tokens(text)
    assert str(caught.value) == f"tokeniser=some: loses text, which makes bits per byte meaningless, e.g. at {lost}"


def test_a_vocabulary_smaller_than_the_ids_is_refused(bpe: Subwords):
    tokeniser = Subwords(bpe.specification, "tokeniser=some")
    tokeniser.begin = 100
    with pytest.raises(ConfigError, match=r"^tokeniser=some: returns the id [0-9]+, but its vocabulary has 100 ids$"):
        tokeniser.tokens("é".encode())


@pytest.mark.parametrize("size", [256, 0, -1, "many", 4096.5, True])
def test_a_size_below_the_bytes_is_refused(size):
    with pytest.raises(ConfigError, match=r"must be \{bpe: n\} with a whole number n above 256$"):
        identity({"bpe": size})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            None,
            "cannot be read (No such file or directory); must be `bytes`, {bpe: n}, or the path of a tokenizer.json",
        ),
        (b"\xff", "not a tokenizer.json of Hugging Face (not UTF-8)"),
        (b"{}", "not a tokenizer.json of Hugging Face ("),
        (b"text", "not a tokenizer.json of Hugging Face ("),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        make_tokeniser(str(path), [])
    assert str(caught.value).startswith(f"tokeniser={path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"^tokeniser\.bpe=280: needs `tokenizers`: pip install 'hybridlab\[bpe\]'$"):
        make_tokeniser({"bpe": 280}, [b"a"])


def test_identities_tell_tokenisers_apart(bpe: Subwords, tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text(bpe.specification)
    identities = [identity("bytes"), identity({"bpe": 280}), identity({"bpe": 281}), identity(str(tmp_path))]
    assert len(set(identities)) == 4
    assert identity(str(tmp_path / "tokenizer.json")) == identities[3]
    assert np.array_equal(Bytes().tokens(b"ab"), [97, 98])


def test_a_file_without_its_library_is_not_called_bad(bpe: Subwords, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"^some: needs `tokenizers`: pip install 'hybridlab\[bpe\]'$"):
        Subwords(bpe.specification, "some")
