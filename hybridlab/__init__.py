"""hybridlab: ablations of hybrid sequence models, with quality broken down by layer group.

The names in `__all__` are the public Python interface; docs/python.md shows how to use them.
"""

from typing import TYPE_CHECKING, Any

from hybridlab.errors import ConfigError, RunFailedError

if TYPE_CHECKING:
    from hybridlab.api import Run, Sweep, compose, list_mixers, list_tasks, open, train

__version__ = "0.3.0"
__all__ = [
    "ConfigError",
    "Run",
    "RunFailedError",
    "Sweep",
    "compose",
    "list_mixers",
    "list_tasks",
    "open",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a name of the public interface when it is first used: `import hybridlab` alone stays
    fast.
    """
    if name not in __all__:
        raise AttributeError(f"module 'hybridlab' has no attribute '{name}'")
    from hybridlab import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
