"""From a node of the configuration to the object that its `_target_` names."""

import inspect
import math
import typing
from collections.abc import Mapping
from typing import Any

from hybridlab.errors import ConfigError, near_miss
from hybridlab.type_check import fits, in_words


def build(settings: Mapping[str, Any], where: str, **given: Any) -> Any:
    """Call the `_target_` of `settings` with the rest of them and with what is `given` at run time.

    Every mistake ends in a ConfigError that starts with the configuration path `where`: a target that cannot be imported,
    a key that it does not take (with the near miss), one that is missing, a value of the wrong type or that it refuses.
    """
    target = find_target(settings, where)
    values = {key: value for key, value in settings.items() if key != "_target_"}
    signature = inspect.signature(target)
    accepted = {name: hint for name, hint in signature.parameters.items() if name not in given}
    hints = _hints(target)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    for key, value in values.items():
        if key not in accepted and not takes_any:
            raise ConfigError(
                f"`{where}.{key}={value}`: {target.__name__} has no such setting; {near_miss(key, accepted)}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"`{where}.{key}={value}`: a finite number is needed")
        if not fits(value, hints.get(key, Any)):
            raise ConfigError(f"`{where}.{key}={value}`: {in_words(hints[key])} is needed")
    for key, parameter in accepted.items():
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD and key not in values:
            raise ConfigError(f"`{where}.{key}`: missing, and {target.__name__} has no default for it")
    try:
        return target(**values, **given)
    except ValueError as error:
        raise ConfigError(f"`{where}{_quoted(str(error))}") from error


def find_target(settings: Mapping[str, Any], where: str) -> Any:
    """Import what the `_target_` of `settings` names."""
    from hydra.utils import get_object

    if "_target_" not in settings:
        raise ConfigError(f"`{where}`: no `_target_`: it names the class to build")
    try:
        return get_object(settings["_target_"])
    except Exception as error:  # importing a user's module may fail in any way; the cause goes on the same line
        cause = str(error.__cause__ or error).strip().splitlines()
        raise ConfigError(f"`{where}._target_={settings['_target_']}`: cannot be imported ({cause[-1]})") from error


def _quoted(message: str) -> str:
    """Close the quotation after the `key=value` that a refused setting's message starts with, if it does."""
    setting, colon, rest = message.partition(": ")
    return (
        f".{setting}`{colon}{rest}"
        if colon and setting.partition("=")[0].replace(".", "").isidentifier()
        else f"`: {message}"
    )


def _hints(target: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):
        return {}
