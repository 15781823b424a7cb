"""What a user may write beyond Hydra: free keys without a plus sign, and no label that was meant for a group."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType, RangeSweep
from hydra.errors import HydraException

from quantlab.config.schema import free_places, groups, options
from quantlab.errors import ConfigError, unknown

_LABELS = ("study", "sweep", "model.name")
"""Fields that only name something; any text will do for them."""


def prepared(command: str, words: Sequence[str]) -> list[str]:
    """A command line's words as Hydra takes them; its flags and what it will refuse stay as they are.

    Args:
        command: a name of `quantlab.config.COMMANDS`.
        words: overrides, and on a command line flags among them.

    Raises:
        ConfigError: for a label that is the name of an option of a group, such as ``sweep=threshold``.
    """
    parsed = [(word, parse(word)) for word in words]
    _check_options(command, [override for _, override in parsed if override is not None])
    _check_labels(command, [override for _, override in parsed if override is not None])
    places = free_places(command)
    return [line for word, override in parsed for line in ([word] if override is None else _added(override, places))]


def parse(word: str) -> Override | None:
    """The override that a word is; None for a flag, and for what cannot be read."""
    if word.startswith("-") or "=" not in word:
        return None
    try:
        return OverridesParser.create().parse_override(word)
    except (HydraException, ValueError):  # Python reads no integer of more than 4300 digits
        return None


def values(override: Override) -> list[str]:
    """What an override sets, as text; several for a sweep over several."""
    if isinstance(override.value(), ChoiceSweep | RangeSweep):
        return [str(value) for value in override.sweep_string_iterator()]
    return [str(override.value())]


def _check_options(command: str, overrides: list[Override]) -> None:
    """See that a group is given the name of an option; Hydra takes an empty list for none."""
    for override in overrides:
        group, value = override.get_key_element().lstrip("+~"), override.value()
        if value == [] and group in groups(command):
            raise unknown(group, value, options(group.partition("@")[0]))


def _added(override: Override, places: dict[str, type | None]) -> list[str]:
    """The overrides that set a key in a place where any key may stand; the override itself elsewhere."""
    line, key = override.input_line, override.key_or_group
    assert line is not None
    place = next((place for place in places if key == place or key.startswith(f"{place}.")), None)
    if place is None or override.type is OverrideType.DEL:
        return [line]
    bare = line.lstrip("+")
    if key == place or not dataclasses.is_dataclass(places[place]):
        return [f"++{bare}"]
    name = key[len(place) + 1 :].split(".")[0]
    return [f"++{place}={{{name}:{{}}}}", bare]  # OmegaConf makes an entry of a dataclass in no other way


def _check_labels(command: str, overrides: list[Override]) -> None:
    given = {override.key_or_group for override in overrides}
    defaults = groups(command)
    for override in overrides:
        label = override.key_or_group
        is_forced = str(override.input_line).startswith("++")  # as a folder's name is
        for value in values(override) if label in _LABELS and not is_forced else ():
            meant = [group for group, usual in defaults.items() if value != usual and value in options(group)]
            if meant and not given & set(meant):
                meant.reverse()  # the largest choice, a whole experiment, is the last of the defaults list
                meant.sort(key=lambda group: not _alike(label, group))
                wishes = " or ".join(f"{group}={value}" for group in meant)
                raise ConfigError(
                    f"{label}={value!r} is a label; did you mean {wishes}? To keep the label, give {meant[0]}= as well"
                )


def _alike(label: str, group: str) -> bool:
    return difflib.SequenceMatcher(None, label, group).ratio() > 0.6
