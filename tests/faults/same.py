"""Whether a study that was disturbed ends as one that nobody disturbed."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from faults.server import SMALL, Server

from quantlab.files import SCRATCH
from quantlab.study.study import Study, open_study


def ends_as(undisturbed: Path, server: Server, where: Path) -> None:
    """See that the same command finishes a study, which is then like one that nobody disturbed."""
    going = server.start("sweep", *SMALL, where=where)
    assert going.end() == 0, going.said
    folder = where / "results" / "s"
    assert same_as(undisturbed, folder)
    verified = server.start("verify", "study=s", where=where)
    assert verified.end() == 0, verified.said
    assert "outputs equal, bit for bit" in verified.said


def same_as(undisturbed: Path, folder: Path) -> bool:
    """See that two studies hold the same."""
    one, other = open_study(undisturbed), open_study(folder)
    recorded = Counter(row.spec.key for row in other.rows if row.is_conclusive and row.repeat_of is None)
    assert recorded == {row.spec.key: 1 for row in one.rows}, "each setting is recorded once"
    assert outputs(other) == outputs(one)
    assert {spec.key for spec in other.images} == {spec.key for spec in one.images}
    assert {spec.key: dict(images.scores) for spec, images in other.images.items()} == {
        spec.key: dict(images.scores) for spec, images in one.images.items()
    }
    assert [spec.key for spec in other.held_out] == [spec.key for spec in one.held_out]
    assert (one.noise_floor is None, other.noise_floor is None) == (False, False)
    assert files(folder) == files(undisturbed)
    for name in ("quantization_config.json", "load.py"):
        assert (folder / "winner" / name).read_text() == (undisturbed / "winner" / name).read_text()
    for image in sorted((undisturbed / "images").iterdir()):
        assert digest(folder / "images" / image.name) == digest(image), image.name
    assert sorted(other.table.loc[other.table["repeat_of"].isna() & (other.table["state"] == "COMPLETE"), "key"]) == (
        sorted(one.table["key"])
    )
    return True


def outputs(study: Study) -> dict[str, Any]:
    """What a study's settings gave, as far as no clock has a part in it."""
    return {
        row.spec.key: (
            row.measurement.output_sha256,
            row.measurement.metrics["snr_db"],
            row.measurement.metrics["memory_bytes"],
        )
        for row in study.rows
        if row.measurement is not None
    }


def files(folder: Path) -> list[str]:
    """The names of a study's files, none of them half-written."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert not [name for name in names if SCRATCH in name]
    return names


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
