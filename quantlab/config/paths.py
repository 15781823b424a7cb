"""Where the YAML files are."""

from pathlib import Path


def conf_dir() -> Path:
    """The folder of the YAML files: conf/ of a checkout, or the copy inside an installed package."""
    package = Path(__file__).parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"


def sweeps_parent() -> Path:
    """The folder that holds sweeps/: in a checkout it is beside conf/, in an installed package inside it."""
    folder = conf_dir()
    return folder if (folder / "sweeps").is_dir() else folder.parent
