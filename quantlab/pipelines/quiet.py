"""Keeps the libraries' chatter off the terminal, so that what quantlab says can be read."""

import logging
import os


def hush() -> None:
    """Lower the log levels of the libraries that load and run a pipeline; works best before they are imported."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "critical")  # what it logs as an error, it raises as well
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("bitsandbytes", "transformers", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("diffusers").setLevel(logging.CRITICAL)


def hide_progress() -> None:
    """Switch off the libraries' progress bars."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
