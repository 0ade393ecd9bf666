"""Sized tasks whose examples are bytes of real text with something planted in it."""

from dataclasses import dataclass
from typing import Any

from hybridlab.tasks.synthetic.sized import Sized
from hybridlab.tasks.text.haystack import VOCABULARY, Haystack


@dataclass(kw_only=True, eq=False)
class InText(Sized):
    """A `Sized` task on the bytes of a corpus (`path` as in `Documents`); each split uses its own
    documents."""

    content_settings = ("path",)
    unit = "byte"
    vocabulary = VOCABULARY

    path: str | None = None
    validation_share: float = 0.1
    test_share: float = 0.1

    def __post_init__(self) -> None:
        self.haystack = Haystack(self.path, self.validation_share, self.test_share)
        self.bytes_of_token = self.haystack.bytes_of_token
        super().__post_init__()

    def content(self) -> str:
        """Return the digest of the corpus."""
        return self.haystack.content

    def describe(self) -> dict[str, Any]:
        """Return facts about the examples and the corpus for the record."""
        return {**super().describe(), "corpus": self.haystack.facts}
