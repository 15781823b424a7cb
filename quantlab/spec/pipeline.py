"""What a trial is: the setting of every component that the study quantizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from quantlab.errors import ConfigError
from quantlab.spec.conversion import from_dict, to_dict
from quantlab.spec.quant import QuantSpec, ReferenceSpec

if TYPE_CHECKING:
    from diffusers import PipelineQuantizationConfig

MIXED = "mixed"
"""Family of a pipeline whose components are quantized in several."""

VERSION = 1
"""Of what `PipelineSpec.to_dict` writes."""


class PipelineSpec(Mapping[str, QuantSpec]):
    """Component name -> `QuantSpec`: immutable, hashable, in the order of the names.

    Example:
        >>> spec = PipelineSpec({"transformer": Int4Spec("nf4")})  # doctest: +SKIP
        >>> spec["transformer"].to_config()  # doctest: +SKIP
        BitsAndBytesConfig {...}
    """

    __slots__ = ("_specs",)

    def __init__(self, components: Mapping[str, QuantSpec]) -> None:
        if not components:
            raise ConfigError("a pipeline's setting must name at least one component")
        self._specs = dict(sorted(components.items()))

    def __getitem__(self, component: str) -> QuantSpec:
        return self._specs[component]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PipelineSpec) and self._specs == other._specs

    def __hash__(self) -> int:
        return hash(tuple(self._specs.items()))

    def __repr__(self) -> str:
        return f"PipelineSpec({self._specs!r})"

    @classmethod
    def reference(cls, components: Mapping[str, Any] | tuple[str, ...] | list[str]) -> PipelineSpec:
        """Every component unquantized."""
        return cls({name: ReferenceSpec() for name in components})

    @classmethod
    def everywhere(cls, spec: QuantSpec, components: tuple[str, ...] | list[str]) -> PipelineSpec:
        """Every component in the same setting."""
        return cls(dict.fromkeys(components, spec))

    @property
    def key(self) -> str:
        """Canonical label; equal for equal specs alone."""
        return "; ".join(f"{name}: {spec.key}" for name, spec in self._specs.items())

    @property
    def is_reference(self) -> bool:
        """Whether nothing is quantized."""
        return all(isinstance(spec, ReferenceSpec) for spec in self._specs.values())

    @property
    def family(self) -> str:
        """The family of its quantized components, `MIXED` for several, "reference" for none."""
        families = {spec.family for spec in self._specs.values()} - {ReferenceSpec.family}
        return families.pop() if len(families) == 1 else MIXED if families else ReferenceSpec.family

    def to_config(self) -> PipelineQuantizationConfig | None:
        """A fresh ``PipelineQuantizationConfig`` of the quantized components; None for the reference."""
        from diffusers import PipelineQuantizationConfig

        configs = {name: spec.to_config() for name, spec in self._specs.items()}
        mapping = {name: config for name, config in configs.items() if config is not None}
        return PipelineQuantizationConfig(quant_mapping=mapping) if mapping else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` is its inverse."""
        return {"version": VERSION, "components": {name: to_dict(spec) for name, spec in self._specs.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PipelineSpec:
        """The spec that `to_dict` wrote.

        Raises:
            ConfigError: for another version, or what no component's spec accepts.
        """
        if data.get("version") != VERSION:
            raise ConfigError(
                f"a pipeline's setting of version {data.get('version')!r} cannot be read; this quantlab reads "
                f"version {VERSION}"
            )
        return cls({name: from_dict(spec) for name, spec in data["components"].items()})
