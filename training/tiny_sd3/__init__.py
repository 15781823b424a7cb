"""Training of the embedded pipeline: ``python -m training.tiny_sd3.train``."""
