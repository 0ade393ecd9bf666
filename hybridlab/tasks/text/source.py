"""The contract of a source of documents."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any


class Source(ABC):
    """A source of documents."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """A hash of everything that determines the documents."""

    @property
    def facts(self) -> dict[str, Any]:
        """What the record keeps of it."""
        return {}

    @abstractmethod
    def documents(self) -> Iterator[bytes]:
        """Yield the UTF-8 bytes of each document; a ConfigError names an unreadable one."""
