"""Turns what Hydra and OmegaConf raise into one line with the field, the value and the valid choices."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator

from hydra.errors import HydraException, MissingConfigException
from omegaconf import MissingMandatoryValue, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quantlab.conf_path import conf_dir
from quantlab.config import COMMANDS
from quantlab.errors import ConfigError, QuantlabError, nearest, unknown

_FREE = ("model.call.", "model.skips.")
"""Where any name may stand: keyword arguments of the pipeline, and skip lists."""


@contextlib.contextmanager
def explained(command: str) -> Iterator[None]:
    """Inside, a configuration that cannot be composed raises `ConfigError` with a one-line message."""
    try:
        yield
    except QuantlabError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(command, error) from None


def explain(command: str, error: Exception) -> QuantlabError:
    """The one-line error for what Hydra or OmegaConf raised while composing a command's configuration."""
    cause = error.__cause__ if error.__cause__ is not None else error
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and (found := re.search(r"'([^']+)/([^'/]+)'", text)):
        group, value = found.groups()
        return unknown(group, value, options(group))
    if found := re.search(r"Could not (?:override|find) '([^']+)'", text) or re.search(
        r"Key '([^']+)' (?:is )?not in", text
    ):
        field = found[1].partition("@")[0]
        names = list(dict.fromkeys(field_names(command) + groups()))
        last = getattr(cause, "full_key", None)
        if isinstance(last, str) and (last.endswith(field) or last.startswith(f"{field}.")):
            field = last
        if field.startswith(_FREE):
            return ConfigError(f"{field!r} is not there yet; add it with +{field}=VALUE")
        near = nearest(field, names)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        parent = field.rpartition(".")[0]
        siblings = [n for n in names if n.rpartition(".")[0] == parent]
        choices = f"; choose from {', '.join(siblings)}" if siblings else ""
        return ConfigError(f"{field!r} is no option of quantlab {command}{hint}{choices}")
    if isinstance(error, MissingMandatoryValue) and (found := re.search(r"(?:value: |full_key: )(\S+)", str(error))):
        return ConfigError(f"{found[1]}=VALUE must be given to quantlab {command}")
    full_key = getattr(error, "full_key", None) or getattr(cause, "full_key", None)
    message = str(getattr(error, "msg", None) or cause).splitlines()[0]
    if full_key and (found := re.search(r"Invalid value '(.*)', expected one of \[(.*)\]", message)):
        return unknown(full_key, found[1], found[2].split(", "))
    if "mismatched input" in text or "no viable alternative" in text or "extraneous input" in text:
        return ConfigError(f"{text[:200]}; quote values that hold spaces, brackets or commas")
    return ConfigError(f"{full_key}: {message}" if full_key and full_key not in message else message)


def options(group: str) -> list[str]:
    """The names that a configuration group can take."""
    folder = conf_dir()
    places = [folder / group, folder.parent / group]
    return sorted({file.stem for place in places if place.is_dir() for file in place.glob("*.yaml")})


def groups() -> list[str]:
    """The configuration groups."""
    return [*sorted(place.name for place in conf_dir().iterdir() if place.is_dir()), "sweeps"]


def field_names(command: str) -> list[str]:
    """Every field of a command's configuration, with dots."""

    def walk(schema: type, prefix: str) -> Iterator[str]:
        for field in dataclasses.fields(schema):
            kind = OmegaConf.get_type(OmegaConf.structured(schema), field.name)
            yield prefix + field.name
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                yield from walk(kind, f"{prefix}{field.name}.")

    return list(walk(COMMANDS[command][0], ""))
