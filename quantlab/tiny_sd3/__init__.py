"""The embedded pipeline: a small Stable Diffusion 3, trained by us, that needs no download."""
