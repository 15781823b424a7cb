"""The layer sensitivities of a study: a parquet file a component."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from quantlab.bnb.matching import DIFFUSERS
from quantlab.errors import StudyError
from quantlab.files import written
from quantlab.frozen import frozen
from quantlab.outcomes import SensitivityTable
from quantlab.outcomes.sensitivity_table import COLUMNS, OUTLIER_SHARE
from quantlab.spec.conversion import from_dict, to_dict

VERSION = 1
_METADATA = b"quantlab"


class DamagedTableError(StudyError):
    """A file of sensitivities that is not whole; another one can be measured in its place."""


def sensitivity_path(folder: Path, component: str) -> Path:
    """Where a study keeps the sensitivities of a component."""
    return folder / f"sensitivity-{component}.parquet"


def save(table: SensitivityTable, path: Path) -> None:
    """Write sensitivities as parquet, atomically; all but the lines is in the file's metadata, as JSON."""
    lines = pa.Table.from_pandas(table.table, preserve_index=False)
    about = {
        "version": VERSION,
        "component": table.component,
        "specs": [to_dict(spec) for spec in table.specs],
        "thresholds": list(table.thresholds),
        "identity": table.identity,
        "samples": table.samples,
        "fidelity_is_meaningful": table.fidelity_is_meaningful,
        "wall_s": table.wall_s,
        "library": table.library,
        "kept_by_default": list(table.kept_by_default),
        "lines": len(table.table),
    }
    metadata = {**(lines.schema.metadata or {}), _METADATA: json.dumps(about).encode()}
    with written(path) as scratch:
        pa.parquet.write_table(lines.replace_schema_metadata(metadata), scratch, write_page_checksum=True)


def load(path: Path) -> SensitivityTable:
    """Read sensitivities that `save` wrote.

    Raises:
        DamagedTableError: where the file is damaged or cut short.
        StudyError: where it is absent, of another version, or something else.
    """
    try:
        lines = pa.parquet.read_table(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise StudyError(f"{path} is not there; make it with quantlab sensitivity") from None
    except (pa.ArrowException, OSError) as error:
        raise DamagedTableError(f"{path} cannot be read ({' '.join(str(error).split())[:120]})") from None
    about = _about(path, lines)
    try:
        return _table(path, lines, about)
    except StudyError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedTableError(f"{path} holds no layer sensitivities") from error


def _table(path: Path, lines: pa.Table, about: dict[str, Any]) -> SensitivityTable:
    specs = tuple(from_dict(spec) for spec in about["specs"])
    columns = (*COLUMNS, *(OUTLIER_SHARE.format(threshold) for threshold in about["thresholds"]))
    missing = [name for name in columns if name not in lines.column_names]
    if missing:
        raise StudyError(f"{path} holds no sensitivities of quantlab's: it lacks {', '.join(missing)}; remove it")
    frame = lines.to_pandas()
    whole = len(set(frame["layer"])) * len(specs)
    if len(frame) != about["lines"] or len(frame) != whole:
        raise DamagedTableError(f"{path} is cut short: {len(frame)} of {max(whole, about['lines'])} lines")
    return SensitivityTable(
        component=about["component"],
        table=frame,
        specs=specs,
        thresholds=tuple(about["thresholds"]),
        identity=frozen(about["identity"]),
        samples=about["samples"],
        fidelity_is_meaningful=about["fidelity_is_meaningful"],
        wall_s=about["wall_s"],
        library=about.get("library", DIFFUSERS),
        kept_by_default=tuple(about.get("kept_by_default", ())),
    )


def load_known(folder: Path, components: list[str]) -> dict[str, SensitivityTable]:
    """The sensitivities that a study holds, by component.

    One that was cut short is left out; the next command that needs it completes it.
    """
    found = {}
    for component in components:
        path = sensitivity_path(folder, component)
        if path.exists():
            try:
                found[component] = load(path)
            except DamagedTableError:
                continue
    return found


def _about(path: Path, lines: pa.Table) -> dict[str, Any]:
    text = (lines.schema.metadata or {}).get(_METADATA)
    try:
        about = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        about = None
    version = about.get("version") if isinstance(about, dict) else None
    if version != VERSION:
        raise StudyError(
            f"{path} holds no sensitivities of quantlab's of version {VERSION} (it says {version!r}); remove it"
        )
    assert isinstance(about, dict)
    return about
