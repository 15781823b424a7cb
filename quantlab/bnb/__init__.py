"""All that knows bitsandbytes: schemes, layers, skip rules, and diffusers without a GPU. Loads no torch."""
