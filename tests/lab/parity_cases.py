"""What the parity tests on the CPU and on CUDA share: the settings, and the same setting loaded the documented way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import SD3Transformer2DModel
from hypothesis import strategies as st

from quantlab import Int4Spec, Int8Spec, Lab, PipelineSpec, QuantSpec
from quantlab.config import ModelConfig
from quantlab.lab.replay import replay
from quantlab.metrics.memory import weight_bytes
from quantlab.pipelines.load import load_component
from training.tiny_sd3.architecture import LATENT_CHANNELS, T5_WIDTH, save, untrained_pipeline

ONE_SAMPLE = ("evaluation.prompts=1", "evaluation.timesteps=1", "evaluation.images=0")

SKIPS = ((), ("proj_out",), ("attn", "norm_out"), ("transformer_blocks.0", "transformer_blocks.1.ff.net.2"))

SPECS: tuple[QuantSpec, ...] = (
    *(Int8Spec(t) for t in (0, 3, 6)),
    *(Int8Spec(t, skip=SKIPS[2]) for t in (0, 3, 6)),
    *(Int8Spec(t, has_fp16_weight=True) for t in (0, 6)),
    Int8Spec(3, skip=SKIPS[1], has_fp16_weight=True),
    *(Int4Spec(quant_type=q, double_quant=d) for q in ("nf4", "fp4") for d in (False, True)),
    *(Int4Spec(quant_type=q, double_quant=d, skip=SKIPS[3]) for q, d in (("nf4", False), ("fp4", True))),
    *(Int4Spec(compute_dtype=dtype) for dtype in ("float32", "bfloat16")),
    *(Int4Spec(compute_dtype=dtype, skip=SKIPS[2]) for dtype in ("float32", "float16", "bfloat16")),
    *(Int4Spec(quant_storage=storage) for storage in ("float16", "bfloat16", "float32")),
    Int4Spec(quant_storage="bfloat16", double_quant=True, skip=SKIPS[1]),
)
"""Every kind of setting, each with and without a skip list."""

SEQUENCES: dict[str, tuple[QuantSpec, ...]] = {
    "thresholds": (Int8Spec(6), Int8Spec(0), Int8Spec(3), Int8Spec(6)),
    "thresholds with 16-bit weights": tuple(Int8Spec(t, has_fp16_weight=True) for t in (6, 0, 6)),
    "compute dtypes": tuple(Int4Spec(compute_dtype=d) for d in ("float32", "float16", "bfloat16", "float16")),
    "methods": (Int8Spec(6), Int4Spec(), Int8Spec(6), Int4Spec(double_quant=True), Int4Spec()),
    "skip lists": (Int4Spec(skip=SKIPS[2]), Int4Spec(), Int4Spec(skip=SKIPS[3]), Int4Spec(skip=SKIPS[2])),
}
"""Settings in a row: a forward leaves traces in modules (it casts biases in place); the next one must not see them."""

int8_specs = st.builds(
    Int8Spec,
    threshold=st.sampled_from([0.0, 1.0, 3.0, 6.0]),
    skip=st.sampled_from(SKIPS),
    has_fp16_weight=st.booleans(),
)
int4_specs = st.builds(
    Int4Spec,
    quant_type=st.sampled_from(["nf4", "fp4"]),
    double_quant=st.booleans(),
    compute_dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    skip=st.sampled_from(SKIPS),
    quant_storage=st.sampled_from(["uint8", "float16", "bfloat16", "float32"]),
)
spec_sequences = st.lists(int8_specs | int4_specs, min_size=2, max_size=4)


_DOCUMENTED: dict[tuple[str, str, str, str], tuple[str, int]] = {}


def transformer(lab: Lab) -> Any:
    """The transformer as it is now."""
    return lab.layer_caches["transformer"].component


def documented(lab: Lab, spec: QuantSpec | PipelineSpec, model: ModelConfig | None = None) -> tuple[str, int]:
    """Digest of the outputs on the lab's samples and the bytes held, of ``from_pretrained(quantization_config=...)``.

    ``model``: what is loaded; the lab's by default.
    """
    model = model or lab.model
    whole = spec if isinstance(spec, PipelineSpec) else PipelineSpec.everywhere(spec, model.components)
    components = {name: load_component(model, name, one.to_config(), lab.device) for name, one in whole.items()}
    result = replay(components, lab.sample_set, lab.device)
    return result.output_sha256, weight_bytes(components.values())


def documented_once(lab: Lab, spec: QuantSpec) -> tuple[str, int]:
    """The same, loaded once for each model and sample set."""
    key = lab.source.fingerprint, lab.sample_set.fingerprint, lab.model.dtype.value, spec.key
    if key not in _DOCUMENTED:
        _DOCUMENTED[key] = documented(lab, spec)
    return _DOCUMENTED[key]


def in_memory(lab: Lab, spec: QuantSpec | PipelineSpec) -> tuple[str, int]:
    """The same of the lab's components."""
    measurement = lab.measure(spec)
    return measurement.output_sha256, int(measurement.memory_bytes)


def save_medium_sd3(folder: Path) -> None:
    """Write a pipeline with a random transformer of 2 blocks, 512 wide."""
    pipeline = untrained_pipeline(seed=2)
    pipeline.vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)
    pipeline.register_modules(
        transformer=SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            num_layers=2,
            num_attention_heads=8,
            attention_head_dim=64,
            caption_projection_dim=512,
            joint_attention_dim=T5_WIDTH,
            pooled_projection_dim=pipeline.transformer.config.pooled_projection_dim,
            pos_embed_max_size=16,
        )
    )
    save(pipeline, folder)
