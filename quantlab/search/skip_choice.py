"""The values of ``space.skip``: named lists, and those that layer sensitivities find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantlab.errors import ConfigError, unknown

AUTO = "auto"
"""Value of ``space.skip`` for the layers that layer sensitivities find most worth keeping."""


@dataclass(frozen=True)
class SkipChoice:
    """A value of ``space.skip``.

    Attributes:
        label: as the configuration writes it.
        entries: of its named list; empty for an automatic list on top of none.
        auto: whether layer sensitivities add layers to them.
        on_top_of: name of the list that an automatic one adds to; empty for none.
    """

    label: str
    entries: tuple[str, ...] = ()
    auto: bool = False
    on_top_of: str = ""


def skip_choices(labels: Sequence[str], skips: Mapping[str, Sequence[str]]) -> dict[str, SkipChoice]:
    """What values of ``space.skip`` mean, by the value.

    Args:
        labels: the values.
        skips: the model's named skip lists.

    Raises:
        ConfigError: for a value that is not known, and for a named list that is called as an automatic one is.
    """
    named = {name: SkipChoice(name, tuple(entries)) for name, entries in skips.items()}
    automatic = {AUTO: SkipChoice(AUTO, auto=True)}
    for name, entries in skips.items():
        label = f"{AUTO}+{name}"
        automatic[label] = SkipChoice(label, tuple(entries), auto=True, on_top_of=name)
    for name in named.keys() & automatic.keys():
        raise ConfigError(
            f"model.skips.{name} must have another name: {AUTO} is for lists that layer sensitivities find"
        )
    known = named | automatic
    for label in labels:
        if label not in known:
            raise unknown("space.skip", label, [*known, "(a list that you add as model.skips.NAME=[MODULE,...])"])
    return {label: known[label] for label in labels}
