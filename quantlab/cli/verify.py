"""``quantlab verify``: the exported config, loaded as documented, gives the measured outputs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from quantlab.cli.show import console
from quantlab.config import VerifyConfig
from quantlab.errors import ConfigError, StudyError
from quantlab.export.config_file import config_to_json, read_config
from quantlab.export.verify import verify
from quantlab.report.view import StudyView, look
from quantlab.study.front import front
from quantlab.study.rows import Row
from quantlab.study.store import StudyStore

if TYPE_CHECKING:
    from diffusers import BitsAndBytesConfig


def main(config: VerifyConfig) -> int:
    """Returns 0 only if every output equals the measured one."""
    with StudyStore.existing(config.results_dir, config.study) as store:
        study = look(store)
        equal = True
        for row, loaded in _subjects(study, config.trial):
            proof = verify(study, row, loaded, config.device)
            equal &= proof.equal
            word = "equal, bit for bit" if proof.equal else f"NOT equal ({proof.snr_db:.2f} dB)"
            console.print(f"trial {row.number}, {row.spec.key}: outputs {word}")
    return 0 if equal else 1


def _subjects(study: StudyView, trial: object) -> list[tuple[Row, BitsAndBytesConfig | None]]:
    if trial is None:
        try:
            number = int(json.loads((study.folder / "winner" / "export.json").read_text())["number"])
        except (FileNotFoundError, KeyError, ValueError):
            raise StudyError(f"study={study.name!r} has no winner/ yet; write it with quantlab export") from None
        return [(study.row(number), read_config(study.folder / "winner" / "quantization_config.json"))]
    if trial == "front":
        rows = front(study.rows)
    elif isinstance(trial, int) and not isinstance(trial, bool):
        rows = [study.row(trial)]
    else:
        raise ConfigError(f"trial={trial!r} must be a trial's number or 'front'")
    return [(row, _through_json(row)) for row in rows]


def _through_json(row: Row) -> BitsAndBytesConfig | None:
    """A row's config as it comes back from a file."""
    from diffusers import BitsAndBytesConfig

    config = row.spec.to_config()
    return None if config is None else BitsAndBytesConfig.from_dict(json.loads(config_to_json(config)))
