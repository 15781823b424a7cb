"""Every exhibit through quantlab, as a table: ``PYTHONPATH=.:tests python -m zoo [FOLDER] [NAME...]``."""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import pandas as pd
from zoo import EXHIBITS, Exhibit
from zoo.measured import Measured, Setting, measured

SCORES = (("psnr_db", "PSNR {:.1f} dB"), ("worst_psnr_db", "worst {:.1f} dB"), ("log_mel_db", "log-mel {:.1f} dB"))


def main(arguments: list[str]) -> int:
    """Measure exhibits and write their table; 1 where one is not what ``from_pretrained`` gives."""
    warnings.simplefilter("ignore")
    folder = Path(arguments[0] if arguments else "results/zoo")
    lines = []
    for exhibit in [EXHIBITS[name] for name in arguments[1:]] or EXHIBITS.values():
        with tempfile.TemporaryDirectory() as scratch:
            try:
                line = as_line(exhibit, measured(exhibit, Path(scratch) / exhibit.name))
            except Exception as error:  # one that cannot be opened is a line of the table as well
                line = {**_named(exhibit), "remark": " ".join(str(error).split())[:160]}
        print("  ".join(str(value) for value in line.values()), flush=True)
        lines.append(line)
    table = pd.DataFrame(lines).fillna("")
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "zoo.csv", index=False)
    (folder / "zoo.md").write_text(as_markdown(table))
    return 0 if (table["parity"] != "").all() else 1


def as_line(exhibit: Exhibit, found: Measured) -> dict[str, object]:
    """A line of the table."""
    settings = {"int8": found.int8, "nf4": found.nf4}
    scored = ", ".join(text.format(found.scores[name]) for name, text in SCORES if name in found.scores)
    errors = [f"{name}: {one.error}" for name, one in settings.items() if one.error]
    return {
        **_named(exhibit),
        "component": found.component,
        "layers": found.layers,
        **{f"{name} dB": "" if one.snr_db is None else f"{one.snr_db:.1f}" for name, one in settings.items()},
        "parity": _parity(found.int8, found.nf4),
        "nf4 shows": f"{found.shows}: {scored}" if scored else found.shows,
        "remark": "; ".join(errors)[:160],
    }


def as_markdown(table: pd.DataFrame) -> str:
    """The table in Markdown."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)


def _named(exhibit: Exhibit) -> dict[str, object]:
    return {"model": exhibit.name, "family": exhibit.family, "kind": exhibit.kind}


def _parity(*settings: Setting) -> str:
    if not all(one.is_proven for one in settings):
        return ""
    found = {"equal": any(one.equal for one in settings), "fails alike": any(one.equal_error for one in settings)}
    return ", ".join(word for word, is_so in found.items() if is_so)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
