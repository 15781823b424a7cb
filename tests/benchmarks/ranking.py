"""Whether a few teacher-forced forwards rank settings as images that they generate in full do, and how few suffice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quantlab.config import Weights
from quantlab.errors import ConfigError, MeasurementError
from quantlab.executors import GenerateImages
from quantlab.metrics.images import IMAGE_METRICS
from quantlab.metrics.prediction import snr_db
from quantlab.outcomes import GeneratedImages, SampleResult
from quantlab.search.space import Space
from quantlab.sensitivity.auto import AutoSkip
from quantlab.spec import PipelineSpec
from quantlab.study.rank_correlation import RankCorrelation, rank_correlation
from tests.benchmarks.benchmark import Benchmark, Result
from tests.benchmarks.config import BenchmarkConfig
from tests.benchmarks.executor import Worker, opened_worker, with_images
from tests.benchmarks.ranking_figures import plot_ranking, ranking_figures

RANKED = tuple(metric.name for metric in IMAGE_METRICS.values() if metric.ranked and metric.of == "images")
"""Image metrics that SNR is ranked against."""


@dataclass(frozen=True)
class Setting:
    """One setting's samples beside its images.

    Attributes:
        key: of its spec.
        samples: as of `Measurement`.
        scores: of its images, by the names of `RANKED`.
        samples_s, images_s: seconds that measuring and that generating took.
    """

    key: str
    samples: tuple[SampleResult, ...]
    scores: dict[str, float]
    samples_s: float
    images_s: float


def run(config: BenchmarkConfig) -> Result:
    """Rank correlation of SNR with the scores of `RANKED` over all settings of the space, by number of samples.

    Raises:
        ConfigError: for random weights, and where no image is generated.
    """
    if config.model.weights is Weights.random:
        raise ConfigError("the ranking benchmark compares fidelity with images; with random weights neither means much")
    if config.generations < 1:
        raise ConfigError(f"generations={config.generations} must be at least 1: images are compared with")
    space = Space(config.space, config.model)
    space.check_grid()
    settings: list[Setting] = []
    failed: list[dict[str, str]] = []
    with opened_worker(with_images(config, config.generations), space.needs_sensitivities) as worker:
        if space.needs_sensitivities:
            space = space.with_auto({name: AutoSkip(table) for name, table in worker.sensitivities().items()})
        for spec in dict.fromkeys(space.setting(params).spec for params in space.grid()):
            if spec.is_reference:
                continue
            try:
                settings.append(_measured(worker, spec))
            except MeasurementError as error:
                failed.append({"key": spec.key, "reason": str(error)})
    if not settings:
        raise MeasurementError(f"none of {len(failed)} settings gave samples and images: {failed[0]['reason']}")
    return {
        "settings": len(settings),
        "images": config.generations,
        "failed": failed,
        "samples_s": sum(setting.samples_s for setting in settings),
        "images_s": sum(setting.images_s for setting in settings),
        "correlations": correlations(settings),
        "rows": [
            {"key": s.key, "snr_db": _snr_db(s.samples), **s.scores, "samples_s": s.samples_s, "images_s": s.images_s}
            for s in settings
        ],
    }


def correlations(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """For 1, 2, 4, 8 ... and all samples: how SNR over so many of the first ranks the settings as their images do."""
    found = []
    for count in counts(min(len(setting.samples) for setting in settings)):
        snr = [_snr_db(setting.samples[:count]) for setting in settings]
        by_score = {name: rank_correlation(snr, [setting.scores[name] for setting in settings]) for name in RANKED}
        found.append({"samples": count, **{name: _plain(value) for name, value in by_score.items()}})
    return found


def counts(most: int) -> list[int]:
    """The powers of two up to a number, and the number itself."""
    powers = [2**power for power in range(most.bit_length()) if 2**power <= most]
    return powers if powers[-1] == most else [*powers, most]


def _measured(worker: Worker, spec: PipelineSpec) -> Setting:
    measurement = worker.measure(spec)
    images = worker.do(GenerateImages(spec))
    assert isinstance(images, GeneratedImages)
    scores = {name: images.scores[name] for name in RANKED}
    return Setting(spec.key, measurement.samples, scores, measurement.wall_s, images.wall_s)


def _snr_db(samples: Sequence[SampleResult]) -> float:
    return snr_db(sum(sample["signal"] for sample in samples), sum(sample["error"] for sample in samples))


def _plain(correlation: RankCorrelation) -> dict[str, float | None]:
    return {"rho": correlation.rho, "low": correlation.low, "high": correlation.high}


BENCHMARK = Benchmark(
    "ranking",
    "whether SNR ranks settings as their images do",
    run,
    ranking_figures,
    plot_ranking,
    ("space=ranking",),
)
