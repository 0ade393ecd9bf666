"""The contract of a source of documents."""

from abc import ABC, abstractmethod
from collections.abc import Iterator


class Source(ABC):
    """A source of documents."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """A hash of everything that determines the documents."""

    @abstractmethod
    def documents(self) -> Iterator[bytes]:
        """Yield the UTF-8 bytes of each document; a ConfigError names an unreadable one."""
