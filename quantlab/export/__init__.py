"""Hands a setting over: its configuration, a script that loads it, and why it was chosen. Imports no torch."""

from quantlab.export.configs import configs_for_verification, read_configs, read_export
from quantlab.export.write import export, export_folder

__all__ = ["configs_for_verification", "export", "export_folder", "read_configs", "read_export"]
