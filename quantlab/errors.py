"""What goes wrong by a user's hand. Each message is one line: the field, its value, the valid choices."""

import difflib
from collections.abc import Iterable


class QuantlabError(Exception):
    """Root of every error that quantlab answers with a message instead of a traceback."""


class ConfigError(QuantlabError, ValueError):
    """A setting that cannot be meant."""


class ModelError(QuantlabError, OSError):
    """A pipeline that cannot be found or read."""


class StudyError(QuantlabError, RuntimeError):
    """A study that cannot be opened, resumed or answered from."""


class MeasurementError(QuantlabError, RuntimeError):
    """A setting that was tried and gave no measurement, by its own doing; ``code`` is that of its `ErrorType`."""

    code = "kernel_refused"


class NonFiniteOutputError(MeasurementError):
    """The quantized component returned NaN or infinity."""

    code = "non_finite_output"


class OutOfMemoryError(MeasurementError):
    """The device's memory did not suffice for the setting."""

    code = "out_of_memory"


class KernelError(MeasurementError):
    """A kernel did not take the setting: what was raised while a layer was made, or within a component's forward."""


class DeploymentRefusedError(MeasurementError):
    """The deployment cannot hold the setting: what was raised while it was put in place, or by a call in it."""

    code = "deployment_refused"


class DeviceLostError(QuantlabError, RuntimeError):
    """The CUDA context is broken: no further kernel runs in this process."""


class NothingQuantizedError(MeasurementError):
    """The skip list kept every layer, so that the setting is the reference under another name."""

    code = "nothing_quantized"


def printable(message: object) -> str:
    """A message for a terminal: control characters, which a value may bring along, are escaped."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(message))


def unknown(
    field: str, value: object, choices: Iterable[object], error: type[QuantlabError] = ConfigError
) -> QuantlabError:
    """The error for a value that is not among the choices, with the nearest of them.

    Args:
        field: what the user set, in the words of the configuration.
        value: what it was set to.
        choices: what it can be.
        error: the class to make.
    """
    names = [str(choice) for choice in choices]
    near = nearest(str(value), names)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return error(f"{field}={value!r} is not known; choose from {', '.join(names) or '(nothing)'}.{hint}")


def nearest(value: str, choices: Iterable[str], count: int = 1) -> list[str]:
    """Up to ``count`` choices that a mistyped value may have meant, best first."""
    return difflib.get_close_matches(value, list(choices), n=count, cutoff=0.5)
