"""Turns what Hydra and OmegaConf raise into one line with the field, the value and the valid choices."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import shlex
from collections.abc import Iterator, Sequence

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import MissingMandatoryValue
from omegaconf.errors import OmegaConfBaseException

from quantlab.config.commands import LATENCIES, METRICS
from quantlab.config.culprit import culprit
from quantlab.config.overrides import parse, values
from quantlab.config.schema import field_names, free_places, groups, options
from quantlab.config.study import LimitConfig
from quantlab.errors import ConfigError, QuantlabError, nearest, unknown

_PLACES = "A folder is given as model=./FOLDER, a repository as model=hub:OWNER/NAME."

_UNREADABLE = ("Error", "mismatched input", "no viable alternative", "extraneous input", "token recognition error")
"""Parts of what a parser says of an interpolation."""


@contextlib.contextmanager
def explained(command: str, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Inside, a configuration that cannot be composed raises `ConfigError` with a one-line message.

    Args:
        command: a name of `quantlab.config.COMMANDS`.
        overrides: what the user wrote.
    """
    try:
        yield
    except QuantlabError:
        raise
    except Exception as error:  # Hydra and OmegaConf raise whatever a word happens to break
        raise explain(command, error, overrides) from error


def explain(command: str, error: Exception, overrides: Sequence[str] = ()) -> QuantlabError:
    """The one-line error for what Hydra or OmegaConf raised while composing a command's configuration."""
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return _unusable(command, str(error), overrides)
    cause = error.__cause__ if error.__cause__ is not None else error
    text = " ".join(str(error).split())
    full_key = getattr(error, "full_key", None) or getattr(cause, "full_key", None) or ""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, value = error.missing_cfg_file.partition("/")
        answer = unknown(group, value, sorted(error.options or options(group)))
        return ConfigError(f"{answer} {_PLACES}") if group == "model" else answer
    if found := re.search(r"Could not override '([^']+)'.* Did you mean to override ([^ ?]+)\?", text):
        return ConfigError(f"quantlab {command} has no option {found[1]!r} (did you mean {found[2]!r}?)")
    if found := re.search(r"Could not (?:override|find) '([^']+)'|Key '([^']+)' (?:is )?not in", text):
        field = (found[1] or found[2]).partition("@")[0]
        return no_option(command, full_key if _covers(full_key, field) else field, overrides)
    if isinstance(error, MissingMandatoryValue) and (found := re.search(r"(?:value: |full_key: )(\S+)", str(error))):
        return ConfigError(f"{found[1]}=VALUE must be given to quantlab {command}")
    if found := re.search(r"Ambiguous value for argument '(([^=]+)=(.*?))' 1\. ", text):
        whole, key, value = found.groups()
        return ConfigError(
            f"{whole!r} has several values: write {shlex.quote(f'{key}=[{value}]')} for a list, "
            f"{shlex.quote(_quoted(key, value))} for text, or add -m to run each"
        )
    if isinstance(error, OverrideParseException):
        return unreadable(str(error.override))
    return _wrong_value(command, full_key, str(getattr(error, "msg", None) or cause).splitlines()[0], overrides)


def unreadable(word: str) -> ConfigError:
    """The error for a word that is no override, with the quotes that make it one."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        return ConfigError(f"{word!r} must be written as OPTION=VALUE")
    if parse(quoted := _quoted(key, value)) is None:
        return ConfigError(f"{word!r} cannot be read as OPTION=VALUE")
    return ConfigError(f"{word!r} cannot be read; if {value!r} is text, write {shlex.quote(quoted)}")


def _quoted(key: str, value: str) -> str:
    """An override whose value is text, whatever is in it."""
    escaped = value.replace('"', '\\"')
    return f'{key}="{escaped}"'


def _unusable(command: str, message: str, overrides: Sequence[str]) -> QuantlabError:
    """The error for words of which nobody says what is wrong with them: the one that it is, or else the message."""
    word = culprit(command, overrides)
    if word is None:
        return ConfigError(": ".join(filter(None, [_short(" ".join(overrides)), " ".join(message.split())])))
    group, _, value = word.lstrip("+~").partition("=")
    if group in groups(command):
        return unknown(group, _short(value), options(group.partition("@")[0]))
    return ConfigError(f"{_short(word)!r} cannot be used: it is no value of {group!r}")


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}..."


def no_option(command: str, field: str, overrides: Sequence[str] = ()) -> ConfigError:
    """The error for a field or group that a command has not, with the nearest of those that it has."""
    taken = groups(command)
    parsed = [override for override in map(parse, overrides) if override]
    field = next((one.key_or_group for one in parsed if one.key_or_group.startswith(f"{field}.")), field)
    names = list(dict.fromkeys([*field_names(command), *taken, *_limits(field)]))
    given = [value for override in parsed if override.key_or_group == field for value in values(override)]
    near = [f"{group}={value}" for value in given for group in taken if value in options(group)]
    near = near or [repr(name) for name in _nearest_names(field, names)]
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    parent = _first_unknown(field, names).rpartition(".")[0]
    siblings = [name for name in names if name.rpartition(".")[0] == parent] or [n for n in names if "." not in n]
    return ConfigError(f"quantlab {command} has no option {field!r}{hint}; choose from {', '.join(siblings)}")


def _wrong_value(command: str, full_key: str, message: str, overrides: Sequence[str]) -> QuantlabError:
    """The error for a value that a field does not take."""
    if full_key and re.match("Key '.*' (is )?not in", message):
        return no_option(command, full_key, overrides)
    if full_key and "does not support deletion" in message:
        return ConfigError(f"{full_key} cannot be removed; give it a value")
    if full_key and "NoneType" in message:
        return ConfigError(f"{full_key}=null must be a value")
    if full_key and (found := re.search(r"Invalid value '(.*)', expected one of \[(.*)\]", message)):
        return unknown(full_key, found[1], found[2].split(", "))
    written = [override for override in map(parse, overrides) if override and _meet(full_key, override.key_or_group)]
    for override in written if full_key else ():
        key, value = override.key_or_group, values(override)[0]
        if "is not a ListConfig, list or tuple" in message:
            return ConfigError(f"{key}={value} must be a list, such as [{value}]")
        if "Cannot merge" in message:
            return ConfigError(f"{key}={value} {_shape(command, key)}")
        if "Cannot assign" in message:
            return ConfigError(f"{key}={value} must hold entries; write {key}.NAME=VALUE")
        if "is not a subclass of LimitConfig" in message:
            return _no_limit(full_key, value)
        if "is not a subclass of" in message:
            return ConfigError(f"{key}={value} {_shape(command, key)}")
        if "is incompatible with type hint" in message:
            return ConfigError(f"{key}={value} holds something of the wrong kind at {full_key}")
    deeper = next(
        (override.key_or_group for override in written if override.key_or_group.startswith(f"{full_key}.")), ""
    )
    if full_key and deeper:
        return no_option(command, deeper, overrides)
    is_ours = any(_meet(full_key, name) for name in (*field_names(command), *free_places(command)))
    if not is_ours or any(part in message for part in _UNREADABLE):
        return _unusable(command, message, overrides)
    if "nterpolation" in message:  # raised where it is resolved, which another field may do
        return ConfigError(f"{culprit(command, overrides) or full_key}: {message}")
    return ConfigError(f"{full_key}: {message}" if full_key not in message else message)


def _shape(command: str, key: str) -> str:
    """What a field must be that was given something of another shape."""
    if key in free_places(command):
        return f"must hold entries: write {key}.NAME=VALUE"
    fields = [name for name in field_names(command) if name.startswith(f"{key}.")]
    return f"has fields of its own: write {fields[0]}=VALUE" if fields else "must be a list"


def _no_limit(key: str, value: str) -> QuantlabError:
    """The error for a metric's limit that says neither max nor min, such as ``budget.memory_bytes=3``."""
    metric = key.rpartition(".")[2]
    usual = (*METRICS, *LATENCIES)
    if metric in usual:
        wishes = " or ".join(f"{name}={value}" for name in _limits(f"{key}.")[1:])
        return ConfigError(f"{key}={value} is no limit; write {wishes}")
    return ConfigError(f"{unknown('budget', metric, usual)} Write a limit as budget.METRIC.max=VALUE or .min=VALUE")


def _limits(field: str) -> list[str]:
    """A metric's entry of the budget and its fields, where the field is one of ``budget.METRIC``."""
    entry = field.rpartition(".")[0]
    is_limit = entry.rpartition(".")[0] == "budget"
    return [entry, *(f"{entry}.{one.name}" for one in dataclasses.fields(LimitConfig))] if is_limit else []


def _nearest_names(field: str, names: Sequence[str]) -> list[str]:
    """The names that a mistyped one may have meant.

    Those very like the whole of it; else those whose last part is alike; else those like its first unknown part.
    """
    leaves = {name: name.rpartition(".")[2] for name in names if "." in name}
    alike = difflib.get_close_matches(field.rpartition(".")[2], set(leaves.values()), n=1, cutoff=0.8)
    return (
        difflib.get_close_matches(field, names, n=1, cutoff=0.85)
        or [name for name, leaf in leaves.items() if "." in field and leaf in alike][:3]
        or nearest(_first_unknown(field, names), names)
    )


def _first_unknown(field: str, names: Sequence[str]) -> str:
    """The shortest beginning of a field with dots that is not among the names."""
    parts = field.split(".")
    beginnings = [".".join(parts[: count + 1]) for count in range(len(parts))]
    return next((name for name in beginnings if name not in names), field)


def _covers(full_key: str, field: str) -> bool:
    """Whether a key with all its parts is that of a field, of which only the last ones may be known."""
    return full_key == field or full_key.endswith(f".{field}") or full_key.startswith(f"{field}.")


def _meet(full_key: str, key: str) -> bool:
    """Whether what was set at a key is what failed, below it or as far as its last parts are known."""
    return _covers(full_key, key) or _covers(key, full_key)
