"""The embedded pipeline: a small Stable Diffusion 3, trained by us, that needs no download."""

from __future__ import annotations

from pathlib import Path

from quantlab.errors import unknown

NAMES = ("tiny_sd3", "tiny_sd3_outliers")


def pipeline_folder(name: str = "tiny_sd3") -> Path:
    """Folder of an embedded pipeline in diffusers' format.

    Args:
        name: "tiny_sd3", or "tiny_sd3_outliers": the same pipeline rescaled to have outlier activations, which is
            written to the cache folder when it is first asked for.

    Raises:
        ConfigError: for another name.
    """
    folder = Path(__file__).parent / "pipeline"
    if name == "tiny_sd3":
        return folder
    if name == "tiny_sd3_outliers":
        from quantlab.tiny_sd3.outliers import outliers_folder

        return outliers_folder(folder)
    raise unknown("model.embedded", name, NAMES)


def adapter_folder() -> Path:
    """Folder of the embedded pipeline's LoRA adapter, as ``deployment.lora`` takes it: with it, rings are drawn."""
    return Path(__file__).parent / "adapter"
