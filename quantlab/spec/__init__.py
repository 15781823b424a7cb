"""Settings as values: of one component (`QuantSpec`) and of a pipeline (`PipelineSpec`). Loads no torch."""

from quantlab.spec.conversion import from_config
from quantlab.spec.pipeline import PipelineSpec
from quantlab.spec.quant import Int4Spec, Int8Spec, QuantSpec, ReferenceSpec

__all__ = ["Int4Spec", "Int8Spec", "PipelineSpec", "QuantSpec", "ReferenceSpec", "from_config"]
