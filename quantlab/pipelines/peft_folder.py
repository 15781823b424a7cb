"""Adapters in peft's own format, which no pipeline of diffusers takes; imports nothing of quantlab."""

from pathlib import Path


def load_peft_adapter(components, folder):  # type: ignore[no-untyped-def]
    """Put the adapter of a folder on the component that has its layers; a ValueError where none has."""
    from peft import LoraConfig
    from safetensors.torch import load_file

    state = load_file(Path(folder) / "adapter_model.safetensors")
    state = {name.removeprefix("base_model.model."): tensor for name, tensor in state.items()}
    paths = {name.partition(".lora_")[0] for name in state}
    for component in components:
        if paths <= {name for name, _ in component.named_modules()}:
            metadata = LoraConfig.from_pretrained(str(folder)).to_dict()
            component.load_lora_adapter(state, prefix=None, metadata=metadata)
            return
    raise ValueError(f"no component has the layer {min(paths)}")
