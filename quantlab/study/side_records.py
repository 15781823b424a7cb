"""What a study keeps beside its rows: the noise floor, held-out prompts, images, predictions and drift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from quantlab.frozen import FrozenDict
from quantlab.outcomes import Evaluated, Failure, NoiseFloor
from quantlab.outcomes.serialization import from_dict as outcome_from_dict
from quantlab.outcomes.serialization import to_dict as outcome_to_dict
from quantlab.spec import PipelineSpec
from quantlab.study import records
from quantlab.study.deployments import Cell
from quantlab.study.drift import MOMENTS, Check
from quantlab.study.records import ImageRecord


class SideRecords:
    """The records of an Optuna study that are no rows; a part of `quantlab.study.store.StudyStore`."""

    optuna_study: optuna.Study

    @property
    def _attributes(self) -> dict[str, Any]:
        return self.optuna_study.user_attrs

    def _set(self, name: str, data: dict[str, Any]) -> None:
        self.optuna_study.set_user_attr(name, data)

    def record_noise_floor(self, noise_floor: NoiseFloor) -> None:
        """Keep the reference's noise floor."""
        self._set("noise floor", records.record("noise_floor", outcome=outcome_to_dict(noise_floor)))

    def noise_floor(self) -> NoiseFloor | None:
        """The noise floor; None where it has not been measured."""
        return next((outcome_from_dict(d["outcome"]) for d in records.of_type("noise_floor", self._attributes)), None)

    def record_held_out(self, spec: PipelineSpec, outcome: Evaluated) -> None:
        """Keep what came of a setting on the held-out prompts."""
        data = records.record("held_out", spec=spec.to_dict(), outcome=outcome_to_dict(outcome))
        self._set(records.label("held out", spec), data)

    def held_out(self) -> dict[PipelineSpec, Evaluated]:
        """What came of settings on the held-out prompts."""
        found = records.of_type("held_out", self._attributes)
        return {records.spec_of(data): outcome_from_dict(data["outcome"]) for data in found}

    def record_images(
        self,
        spec: PipelineSpec,
        scores: Mapping[str, float],
        unavailable: Mapping[str, str] | None = None,
        failure: Failure | None = None,
    ) -> None:
        """Keep the image scores of a finalist, or why it has none."""
        images = ImageRecord(FrozenDict(scores), FrozenDict(unavailable or {}), failure)
        self._set(records.label("images", spec), records.images_to_dict(spec, images))

    def images(self) -> dict[PipelineSpec, ImageRecord]:
        """How close the images of settings are to the reference's."""
        found = records.of_type("images", self._attributes)
        return {records.spec_of(data): records.images_from_dict(data) for data in found}

    def record_prediction(self, spec: PipelineSpec, prediction: Mapping[str, float]) -> None:
        """Keep what layer sensitivities predicted of a setting before it was measured, by metric."""
        data = records.record("prediction", spec=spec.to_dict(), prediction=dict(prediction))
        self._set(records.label("prediction", spec), data)

    def predictions(self) -> dict[PipelineSpec, dict[str, float]]:
        """What was predicted of settings, by metric."""
        found = records.of_type("prediction", self._attributes)
        return {records.spec_of(data): dict(data["prediction"]) for data in found}

    def record_deployed(self, cell: Cell) -> None:
        """Keep what came of a setting in a deployment."""
        self._set(records.label(f"deployed {cell.deployment}", cell.spec), records.cell_to_dict(cell))

    def deployments(self) -> list[Cell]:
        """What came of settings in deployments, in the order they were measured."""
        return [records.cell_from_dict(data) for data in records.of_type("deployed", self._attributes)]

    def record_drift(self, check: Check) -> None:
        """Keep the latency of the setting that is measured at the start, in the middle and at the end."""
        self._set(f"drift {check.when}", records.check_to_dict(check))

    def drift(self) -> list[Check]:
        """The checks of the study, in the order of the study."""
        checks = map(records.check_from_dict, records.of_type("drift", self._attributes))
        return sorted(checks, key=lambda check: MOMENTS.index(check.when))
