"""From a node of the configuration to the object that its `_target_` names."""

import inspect
import logging
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from hybridlab.errors import ConfigError, near_miss, under
from hybridlab.renamed import DIVIDED, SETTINGS, TARGETS
from hybridlab.type_check import fits, in_words


def build(settings: Mapping[str, Any], where: str, **given: Any) -> Any:
    """Call the `_target_` of `settings` with its other keys and the run-time arguments `given`.

    Every mistake raises a ConfigError that starts with the configuration path `where`: a target
    that cannot be imported, an unknown key (with its new name or the near miss), a missing key, a
    value of the wrong type, a value that the target refuses.
    """
    target, values = checked(settings, where, given)
    with under(where):
        return target(**values, **given)


def checked(settings: Mapping[str, Any], where: str, given: Collection[str] = ()) -> tuple[Any, dict[str, Any]]:
    """Return the target of `settings` and its other keys, checked as `build` does before it calls
    the target with them and the arguments that are `given`.
    """
    target = find_target(settings, where)
    values = {key: value for key, value in settings.items() if key != "_target_"}
    signature = inspect.signature(target)
    accepted = {name: hint for name, hint in signature.parameters.items() if name not in given}
    hints = _hints(target)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    for key, value in values.items():
        if key not in accepted and not takes_any:
            raise _unknown(key, value, settings["_target_"], where, accepted)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"`{where}.{key}={value}`: must be a finite number")
        if not fits(value, hints.get(key, Any)):
            raise ConfigError(f"`{where}.{key}={value}`: must be {in_words(hints[key])}")
    for key, parameter in accepted.items():
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD and key not in values:
            raise ConfigError(f"`{where}.{key}`: missing, and {target.__name__} has no default for it")
    return target, values


def find_target(settings: Mapping[str, Any], where: str) -> Any:
    """Import the class or function that the `_target_` of `settings` names."""
    from hydra.utils import get_object

    if "_target_" not in settings:
        raise ConfigError(f"`{where}`: no `_target_`: it names the class to build")
    name = settings["_target_"]
    if name in TARGETS:
        raise ConfigError(f"`{where}._target_={name}`: moved, write `{TARGETS[name]}`")
    if name in DIVIDED:
        raise ConfigError(
            f"`{where}._target_={name}`: divided, write `evaluation/measures=[{','.join(DIVIDED[name])}]`"
        )
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # the error below says the same
    try:
        return get_object(name)
    except Exception as error:  # a user's module may fail in any way; the cause goes on the same line
        cause = str(error.__cause__ or error).strip().splitlines()
        raise ConfigError(f"`{where}._target_={name}`: cannot be imported ({cause[-1]})") from error


def _unknown(key: str, value: Any, target: str, where: str, accepted: Iterable[str]) -> ConfigError:
    """Return the error for an unknown setting: its new name, or the near miss."""
    new = SETTINGS.get(target, {}).get(key)
    if new == "measures":  # a config group, whose options are chosen by name
        choice = f"{where}/{new}=[{','.join(map(str, value or ()))}]"
        if isinstance(value, Mapping):
            choice = f"+{where}.{new}.{next(iter(value), 'NAME')}=..."
        return ConfigError(f"`{where}.{key}={value}`: renamed, write `{choice}`")
    if new is not None:
        return ConfigError(f"`{where}.{key}={value}`: renamed, write `{where}.{new}={value}`")
    name = target.rpartition(".")[2]
    return ConfigError(f"`{where}.{key}={value}`: {name} has no such setting; {near_miss(key, accepted)}")


def _hints(target: Any) -> dict[str, Any]:
    try:
        parameters = inspect.signature(target, eval_str=True).parameters.values()
    except NameError:  # an annotation that only a type checker can resolve
        return {}
    return {each.name: Any if each.annotation is each.empty else each.annotation for each in parameters}
