"""The finalists' images: generated in full, and scored against the reference's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from quantlab.config import Weights
from quantlab.config.prompts import image_requests
from quantlab.executors import GenerateImages
from quantlab.files import written
from quantlab.metrics.metric import Metric
from quantlab.outcomes import ErrorType, Failure, GeneratedImages, Outcome
from quantlab.session.estimates import image_s
from quantlab.session.events import ImagesSkipped, Phase, PhaseAdvanced
from quantlab.session.in_flight import Request, run_requests
from quantlab.session.session import Session
from quantlab.spec.setting import Setting
from quantlab.study.baselines import baselines
from quantlab.study.front import front
from quantlab.study.images import image_path
from quantlab.study.rows import Row
from quantlab.study.ties import ties
from quantlab.study.winner import best


def finalists(
    rows: Sequence[Row], compared: Sequence[Setting], objectives: Sequence[Metric], winner: Row | None, most: int
) -> list[Row]:
    """The settings that generate images, the reference first; a setting that ties with a cheaper one is left out.

    Args:
        rows: of the study.
        compared: the baselines.
        objectives: of the study.
        winner: of the study.
        most: how many: the reference, the winner, the other baselines, then members of the front at even distances.
    """
    measured = {row.spec: row for row in rows if row.measurement is not None and row.repeat_of is None}
    usual = [measured[setting.spec] for setting in compared if setting.spec in measured]
    references = [row for row in usual if row.spec.is_reference]
    chosen = list({row.spec: row for row in (*references, *([winner] if winner else []), *usual)}.values())[:most]
    members = front(rows, objectives)
    tied, seen = ties(members, objectives), {row.spec for row in chosen}
    rest = [row for row in members if row.number not in tied and row.spec not in seen]
    count = min(most - len(chosen), len(rest))
    return chosen + [rest[int((i + 0.5) * len(rest) / count)] for i in range(count)]


def generate_images(session: Session, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Generate and score what has not been generated before; a setting that fails at it stays without images.

    The next session tries it again, unless it broke the device.

    Raises:
        DeviceLostError: where generating breaks the device for good; that setting is not tried again.
    """
    config, store = session.config, session.store
    if config.model.weights is Weights.random or config.evaluation.images == 0:
        reason = "random_weights" if config.model.weights is Weights.random else "none_asked"
        session.on_event(ImagesSkipped(None, "", reason))
        return
    if not session.description.shows:  # said when the lab was opened
        return
    rows, objectives = store.rows(), session.plan.objectives
    winner = best(rows, objectives, session.plan.budget, config.rule)
    chosen = finalists(rows, baselines(config.model, config.own_quant), objectives, winner, config.evaluation.finalists)
    count, done = len(image_requests(config.model, config.evaluation)), store.images()
    missing = []
    for row in chosen:
        failure = done[row.spec].failure if row.spec in done else None
        if failure is not None and failure.error is ErrorType.device_lost:
            session.on_event(ImagesSkipped(row.spec, row.name, failure.error.value, failure.message))
        elif row.spec not in done or failure is not None or not _has_images(store.folder, row, count):
            missing.append(row)
    total, each = len(missing) * count, image_s(config, session.description)
    with session.phase(Phase.images, total, None if each is None else total * each):
        finished = 0

        def request(row: Row) -> Request:
            def take_in(outcome: Outcome) -> None:
                nonlocal finished
                finished += count
                _keep(session, row, outcome)
                session.on_event(PhaseAdvanced(Phase.images, finished, total, row.name))

            return Request(GenerateImages(row.spec), take_in)

        run_requests(session.executor, map(request, missing), should_stop)


def _has_images(folder: Path, row: Row, count: int) -> bool:
    return all(image_path(folder, row.spec, index).exists() for index in range(count))


def _keep(session: Session, row: Row, outcome: Outcome) -> None:
    store = session.store
    if isinstance(outcome, Failure):
        store.record_images(row.spec, {}, {}, outcome)
        session.on_event(ImagesSkipped(row.spec, row.name, outcome.error.value, outcome.message))
        return
    assert isinstance(outcome, GeneratedImages)
    (store.folder / "images").mkdir(exist_ok=True)
    for index, content in enumerate(outcome.files):
        with written(image_path(store.folder, row.spec, index, outcome.suffix)) as scratch:
            scratch.write_bytes(content)
    store.record_images(row.spec, dict(outcome.scores), dict(outcome.unavailable), None)
