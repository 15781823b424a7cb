"""The waist: the only code that touches torch modules."""

from quantlab.lab.lab import Lab

__all__ = ["Lab"]
