"""Tells a command line's flags, which are Hydra's, from its overrides, which may stand in any order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hydra._internal.utils import get_args_parser

from quantlab.errors import ConfigError, unknown

_REFUSED = ("--config-path", "--config-name", "--experimental-rerun", "--shell-completion", "--run")
"""Of Hydra's flags: those that replace quantlab's own configuration, read a pickle, or do nothing here."""


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides and the flags, each with its value.

    Raises:
        ConfigError: for a flag that is not known, lacks its value, or does not take it.
    """
    known = [action for action in get_args_parser()._actions if not {*action.option_strings} & {*_REFUSED}]
    actions = {flag: action for action in known for flag in action.option_strings}
    overrides: list[str] = []
    flags: list[str] = []
    rest: Iterator[str] = iter(words)
    for word in rest:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        name, _, value = word.partition("=")
        if name not in actions:
            raise unknown("flag", name, [flag for flag in actions if flag.startswith("--")])
        flags.append(word)
        if actions[name].nargs is None and not value:
            value = next(rest, "")
            if not value or value.startswith("-"):
                raise ConfigError(f"{name} must be followed by a value")
            flags.append(value)
        if actions[name].choices and value not in actions[name].choices:
            raise unknown(name, value, actions[name].choices)
    return overrides, flags
