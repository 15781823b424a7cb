"""Whether a few teacher-forced forwards rank settings as the images that they draw in full do, and how few suffice."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from quantlab.config import BenchConfig, Weights
from quantlab.drawings import drawings
from quantlab.errors import ConfigError, MeasurementError
from quantlab.lab import Lab
from quantlab.lab.images import image_scores
from quantlab.measurement import MEANINGLESS, snr_db
from quantlab.profile.auto import AutoSkip
from quantlab.search.space import Space
from quantlab.spec import QuantSpec, ReferenceSpec
from quantlab.study.identity import identity
from quantlab.study.rows import RANKED_SCORES
from quantlab.study.tiers import RankCorrelation, rank_correlation


def run(config: BenchConfig) -> dict[str, Any]:
    """Rank correlation of SNR with the scores of `RANKED_SCORES` over all settings of the space, by number of probes.

    Raises:
        ConfigError: for random weights, and where nothing is drawn.
    """
    if config.model.weights is Weights.random:
        raise ConfigError(f"bench ranking compares fidelity with images; fidelity is {MEANINGLESS}")
    if config.generations < 1:
        raise ConfigError(f"generations={config.generations} must be at least 1: bench ranking compares with images")
    space = Space(config.space, config.model.skips)
    space.check_grid()
    score = dataclasses.replace(config.score, images=config.generations)
    with Lab(config.model, score, config.device, config.lab) as lab:
        if space.needs_profile:
            belongs = identity(config.model, score, lab.fingerprint, lab.probe_set.fingerprint, lab.provenance)
            space = space.with_auto(AutoSkip(lab.profile(config.profile, belongs)))
        specs = {spec.key: spec for params in space.grid() if not isinstance(spec := space.spec(params), ReferenceSpec)}
        wanted = drawings(config.model, score)
        references = [lab.draw(ReferenceSpec(), prompt, seed) for prompt, seed in wanted]
        rows, failed = [], []
        for spec in specs.values():
            try:
                rows.append(_row(lab, spec, wanted, references))
            except MeasurementError as error:
                failed.append({"key": spec.key, "reason": str(error)})
    if not rows:
        raise MeasurementError(f"none of {len(failed)} settings could be measured and drawn: {failed[0]['reason']}")
    return {
        "settings": len(rows),
        "drawings": len(wanted),
        "failed": failed,
        "probes_s": sum(row["probes_s"] for row in rows),
        "drawings_s": sum(row["drawings_s"] for row in rows),
        "correlations": correlations(rows),
        "rows": [{name: value for name, value in row.items() if name != "probes"} for row in rows],
    }


def correlations(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For 1, 2, 4, 8 ... and all probes: how SNR over so many of the first ranks the rows as their images do.

    Args:
        rows: each with its ``probes``, as in `Measurement.probes`, and its image scores.
    """
    found = []
    for count in _counts(min(len(row["probes"]) for row in rows)):
        snr = [_snr_db(row["probes"][:count]) for row in rows]
        by_score = {name: rank_correlation(snr, [row[name] for row in rows]) for name in RANKED_SCORES}
        found.append({"probes": count, **{name.removesuffix("_db"): _plain(value) for name, value in by_score.items()}})
    return found


def _row(lab: Lab, spec: QuantSpec, wanted: Sequence[tuple[str, int]], references: list[Any]) -> dict[str, Any]:
    """One setting: its probes, and its drawings against the reference's."""
    measured = lab.measure(spec)
    start = time.perf_counter()
    images = [lab.draw(spec, prompt, seed) for prompt, seed in wanted]
    drawings_s = time.perf_counter() - start
    scores = image_scores(images, references)
    return {
        "key": spec.key,
        "snr_db": measured.snr_db,
        **{name: scores[name] for name in RANKED_SCORES},
        "probes": measured.probes,
        "probes_s": measured.wall_s,
        "drawings_s": drawings_s,
    }


def _counts(most: int) -> list[int]:
    powers = [2**power for power in range(most.bit_length()) if 2**power <= most]
    return powers if powers[-1] == most else [*powers, most]


def _snr_db(probes: Sequence[dict[str, float]]) -> float:
    return snr_db(sum(probe["signal"] for probe in probes), sum(probe["error"] for probe in probes))


def _plain(correlation: RankCorrelation) -> dict[str, float | None]:
    return {"rho": correlation.rho, "low": correlation.low, "high": correlation.high}
