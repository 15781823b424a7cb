"""Where the YAML files are."""

from pathlib import Path


def conf_dir() -> Path:
    """The folder of the YAML files: conf/ of a checkout, or the copy inside an installed package."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "conf"
