"""Sentences about data: units, intervals, singular and plural, and each code in words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fakes import METRICS, MODEL, OBJECTIVES, STEEP, FrozenDict, limits, measurement, objectives, pipeline, row
from hypothesis import given
from hypothesis import strategies as st
from report.studies import numbers, study
from report.test_figures import random_weights, several_samples

from quantlab.config import EvaluationConfig
from quantlab.metrics.budget import Budget, parse_budget
from quantlab.metrics.images import IMAGE_METRICS, TOO_SMALL
from quantlab.metrics.intervals import Interval, interval
from quantlab.metrics.lpips import NO_TORCHVISION, NO_WEIGHTS, UNREADABLE
from quantlab.metrics.registry import built_in
from quantlab.outcomes import ErrorType, Failure, LargeSkipEntry, Measurement, NoiseFloor, Placement, Pruned
from quantlab.report import text
from quantlab.report.text.host_bound import host_bound_line
from quantlab.report.text.outcomes import ERRORS
from quantlab.report.text.values import bare, noun, sentence
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, ReferenceSpec
from quantlab.study.drift import Check
from quantlab.study.rank_correlation import RankCorrelation, rank_correlations
from quantlab.study.rows import Row, Source
from quantlab.study.store import StudyStore
from quantlab.study.study import Study
from quantlab.study.winner import Winner, choose

SNR, MEMORY, LATENCY = OBJECTIVES


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("snr_db", 34.281, "34.28 dB"),
        ("memory_bytes", 2_480_000, "2.48 MB"),
        ("memory_bytes", 11_900_000_000, "11.9 GB"),
        ("latency_ms", 25.66, "25.7 ms"),
        ("latency_ms", 0.0123, "0.012 ms"),  # never rounded to nothing
        ("latency_ms", 0.0, "0.0 ms"),
        ("rel_l2", 0.019321, "0.0193"),
        ("bits_per_weight", 4.127, "4.13 bit"),
    ],
)
def test_a_value_has_its_unit_and_its_digits(name: str, value: float, expected: str) -> None:
    assert text.number(built_in()[name], value) == expected


def test_a_value_has_its_interval_and_one_without_width_is_not_shown() -> None:
    assert text.format_metric(SNR, 34.281, Interval(31.94, 37.18)) == "34.28 dB [31.9, 37.2]"
    assert text.format_metric(LATENCY, 25.7, Interval(25.44, 25.99)) == "25.7 ms [25.4, 26.0]"
    assert text.format_metric(SNR, 100.0, Interval(100.0, 100.0)) == "100.00 dB"
    assert text.format_metric(MEMORY, 2_480_000) == "2.48 MB"


@given(st.floats(1e-12, 1e12), st.sampled_from(METRICS))
def test_no_value_that_is_not_0_reads_as_0(value: float, metric: object) -> None:
    assert float(bare(metric, value).split()[0]) > 0 or metric.unit == "bytes"  # type: ignore[arg-type, attr-defined]


def test_a_cell_leaves_the_unit_to_its_heading() -> None:
    m = measurement(Int4Spec(), 20.0, 2_480_000, 25.7, STEEP, latency_iqr_ms=0.4)
    low, high = (f"{end:.1f}" for end in dataclasses.astuple(interval(SNR, m.samples)))  # type: ignore[arg-type]
    assert (text.heading(SNR), text.cell(SNR, m)) == ("prediction SNR\ndB [95 %]", f"20.00 [{low}, {high}]")
    assert (text.heading(MEMORY), text.cell(MEMORY, m)) == ("weight memory", "2.48 MB")
    assert text.heading(LATENCY) == "latency of one forward\nms [quartiles]"
    assert text.cell(LATENCY, m).startswith("25.7 [")
    assert text.heading(SNR, meaningful=False).endswith("(not meaningful: random weights)")
    assert text.heading(MEMORY, meaningful=False) == "weight memory"
    assert [text.heading(one) for one in IMAGE_METRICS.values()] == [
        *("PSNR dB", "SSIM", "MS-SSIM", "LPIPS", "worst PSNR dB", "log-mel distance dB")
    ]


def test_lists_and_counts_read_as_sentences_do() -> None:
    assert [text.join(list("abc"[:n])) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert [text.count(n, "setting") for n in (0, 1, 2)] == ["0 settings", "1 setting", "2 settings"]
    assert [text.count(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]
    assert (sentence("it ran"), sentence("It ran.")) == ("It ran.", "It ran.")


def test_a_row_says_its_objectives_or_what_became_of_it() -> None:
    spec = pipeline(Int4Spec())
    done = row(3, spec, 20.0, 2_480_000, 25.7, name="nf4")
    assert text.outcome_line(done, OBJECTIVES) == "nf4: 20.00 dB, 2.48 MB, 25.7 ms"
    assert text.outcome_line(done, objectives("latency_ms")) == "nf4: 25.7 ms"
    failed = Row(4, spec, "nf4", Failure(spec, ErrorType.out_of_memory, "8 GB needed"))
    assert text.outcome_line(failed, OBJECTIVES) == "nf4: failed, out of memory: 8 GB needed"
    pruned = Row(5, spec, "nf4", Pruned(3, 0.99, 16, measurement(spec, hardness=STEEP)))
    expected = "nf4: pruned after 4 of 16 samples: trial 3 is better in every objective (99 % confidence)"
    assert text.outcome_line(pruned, OBJECTIVES) == expected
    assert text.saved_line([pruned.outcome]) == "1 setting pruned, which saved 12 of 16 forwards"  # type: ignore[list-item]
    assert text.saved_line([]) == ""


def test_a_row_of_random_weights_is_silent_about_fidelity() -> None:
    m = measurement(Int4Spec(), 20.0, 2_480_000, 25.7, fidelity_is_meaningful=False)
    assert text.row_figures(m, OBJECTIVES) == "2.48 MB, 25.7 ms"


def test_every_error_type_has_words() -> None:
    assert ERRORS.keys() == set(ErrorType)


def rows(count: int) -> list[Row]:
    """So many settings on the front, the more memory the better."""
    specs = [Int8Spec(float(index)) for index in range(count)]
    made = [row(i, s, 20.0 + i, 1_000_000 + 1000 * i, 10.0, name=f"int8 t={i}") for i, s in enumerate(specs)]
    return [*made, row(count, ReferenceSpec(), 100.0, 10_000_000, 9.0, name="reference", source=Source.baseline)]


def reason(count: int, rule: str = "auto", chosen: tuple[object, ...] = OBJECTIVES, **budget: float) -> str:
    wanted = parse_budget(limits(**budget), METRICS)
    winner = choose(rows(count), chosen, wanted, rule)  # type: ignore[arg-type]
    assert isinstance(winner, Winner)
    return text.reason_line(winner, chosen)  # type: ignore[arg-type]


def test_the_reason_is_right_for_one_setting_and_for_many() -> None:
    assert reason(1) == "it is the only setting on the front"
    assert reason(1, memory_bytes_max=2e6) == "it is the only setting on the front within the budget"
    assert reason(12, "snr_db") == "it has the highest prediction SNR of the 12 settings on the front"
    assert reason(3, "memory_bytes") == "it has the lowest weight memory of the 3 settings on the front"
    assert reason(3) == (
        "it is the closest of the 3 settings on the front to the ideal point (the best prediction SNR, weight memory "
        "and latency of one forward together, each scaled to its range)"
    )
    assert reason(3, memory_bytes_max=1_001_500) == (
        "it has the highest prediction SNR of the 2 settings on the front within the budget"
    )
    assert reason(3, memory_bytes_max=2e7).endswith("; the unquantized reference also keeps the budget")


def test_a_cheaper_tie_names_what_it_ties_with(tmp_path: Path) -> None:
    view = study(tmp_path / "s", several_samples, rule="snr_db")
    assert isinstance(view.winner, Winner)
    assert view.winner.row.number != view.winner.reason.picked
    why = view.winner.reason
    assert text.choice_line(view) == (
        f"trial {view.winner.row.number}, int8 t=0 (45.00 dB, 900 kB, 20.0 ms): trial {why.picked} has the highest "
        f"prediction SNR of the {why.on_front} settings on the front, and this one ties with it and is cheaper"
    )
    three = dataclasses.replace(view.winner, reason=dataclasses.replace(why, tied=3))
    assert text.reason_line(three, view.objectives).endswith(
        ", and this one is the cheapest of the 3 settings that tie at its cost or less"
    )


@pytest.mark.parametrize(
    ("latency_ms", "told"),
    [(19.0, "), slower than the reference (1.9 times its latency): "), (10.1, "): "), (5.0, "): ")],
)
def test_a_winner_that_is_slower_than_the_reference_says_so_at_once(
    tmp_path: Path, latency_ms: float, told: str
) -> None:
    def timed(spec: PipelineSpec) -> Measurement:
        m = numbers(spec)
        return measurement(
            spec, m.metrics["snr_db"], int(m.metrics["memory_bytes"]), 10.0 if spec.is_reference else latency_ms
        )

    line = text.choice_line(study(tmp_path / "s", timed))
    assert f"{latency_ms:.1f} ms{told}" in line


def test_random_weights_are_said_not_to_be_judged(tmp_path: Path) -> None:
    view = random_weights(tmp_path / "s")
    assert text.choice_line(view).endswith("; fidelity was ignored because the weights are random")
    assert "SNR" not in text.choice_line(view)
    assert text.study_notes(view) == ["fidelity is not meaningful: random weights"]
    assert text.objectives_line(view.objectives, False).endswith("; prediction SNR is not meaningful: random weights")
    held_out = text.held_out_line(view, view.front_rows[0])
    assert held_out == "not confirmed on held-out prompts: fidelity is not meaningful: random weights"


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "no quantized setting has been measured, so there is no winner"),
        (
            1,
            "the only setting measured, trial 0, int8 t=0 (20.00 dB, 1 MB, 10.0 ms), misses "
            "budget.memory_bytes.max=500kB by 500 kB and budget.snr_db.min=40.00dB by 20.00 dB",
        ),
        (
            3,
            "none of the 3 settings measured keeps the budget; the closest, trial 0, int8 t=0 (20.00 dB, 1 MB, "
            "10.0 ms), misses budget.memory_bytes.max=500kB by 500 kB and budget.snr_db.min=40.00dB by 20.00 dB",
        ),
    ],
)
def test_no_winner_is_explained_by_what_comes_closest(count: int, expected: str) -> None:
    budget = parse_budget(limits(memory_bytes_max=5e5, snr_db_min=40.0), METRICS) if count else Budget()
    found = choose(rows(count), OBJECTIVES, budget)
    assert not found
    said = text.no_winner_line(found, budget, OBJECTIVES, METRICS)  # type: ignore[arg-type]
    if count == 3:  # which one is closest is the winner's to say
        assert said.startswith("none of the 3 settings measured keeps the budget; the closest, trial ")
        assert "misses budget.memory_bytes.max=500kB by " in said
    else:
        assert said == expected


def test_the_noise_floor_names_each_reason_once() -> None:
    figures = FrozenDict({"run twice": 100.0, "float32": 56.76, "bfloat16": 38.1})
    assert text.noise_floor_line(NoiseFloor(figures)) == (
        "noise floor (the reference against itself): run twice 100 dB (identical), float32 56.8 dB, bfloat16 38.1 dB"
    )
    reasons = {"float32": "streamed", "bfloat16": "streamed"}
    none = NoiseFloor(FrozenDict({"run twice": 60.0, "float32": None, "bfloat16": None}), FrozenDict(reasons))
    assert text.noise_floor_line(none) == (
        "noise floor (the reference against itself): run twice 60 dB; float32, bfloat16 not measured (the reference is "
        "streamed from the host)"
    )


@pytest.mark.parametrize("code", ["random_weights", "streamed", "loaded_pipeline", *(e.value for e in ErrorType)])
def test_every_reason_of_the_noise_floor_has_words(code: str) -> None:
    said = text.noise_floor_line(NoiseFloor(FrozenDict({"float32": None}), FrozenDict({"float32": code})))
    assert "not measured (" in said
    assert "_" not in said


def with_noise_floor(folder: Path, floor_db: float) -> Study:
    noise_floor = NoiseFloor(FrozenDict({"run twice": 100.0, "float32": floor_db}))
    return study(folder, several_samples, fill=lambda store: store.record_noise_floor(noise_floor))


def test_settings_within_the_noise_floor_are_counted(tmp_path: Path) -> None:
    assert text.indistinguishable_line(with_noise_floor(tmp_path / "a", 99.0)) == ""
    every = text.indistinguishable_line(with_noise_floor(tmp_path / "b", 0.0))
    assert every == "14 of 14 settings are indistinguishable from it"
    assert text.indistinguishable_line(study(tmp_path / "c")) == ""


def test_the_legend_of_ties_follows_the_objectives() -> None:
    assert text.ties_legend(OBJECTIVES) == (
        "= n: indistinguishable from trial n in prediction SNR, and trial n is no worse in weight memory or latency of "
        "one forward beyond the noise"
    )
    assert text.ties_legend(objectives("snr_db")) == "= n: indistinguishable from trial n in prediction SNR"


def check(when: str, latency_ms: float) -> Check:
    return Check(when, pipeline(Int8Spec()), latency_ms, "latency_ms")


def test_a_noisy_machine_is_a_note_and_a_quiet_one_is_none(tmp_path: Path) -> None:
    def fill(store: StudyStore) -> None:
        for when, latency_ms in (("start", 50.0), ("middle", 52.5), ("end", 51.0)):
            store.record_drift(check(when, latency_ms))

    assert text.study_notes(study(tmp_path / "s", fill=fill)) == [
        "the machine was noisy: int8 t=6 took 50.0 ms at the start, 52.5 ms in the middle and 51.0 ms at the end, a "
        "spread of 5 % (at most 2 % is normal); ignore smaller differences in latency"
    ]
    assert text.drift_line([check("start", 50.0), check("end", 50.9)], "x") == ""
    assert "a spread of 250 % (at most 2 %" in text.drift_line([check("start", 50.0), check("end", 175.0)], "x")
    assert "a spread of 2.4 % (at most 2 %" in text.drift_line([check("start", 50.0), check("end", 51.2)], "x")
    assert text.drift_line([], "x") == ""


def held_out(folder: Path, act: object = None, **evaluation: int) -> tuple[Study, Row]:
    def fill(store: StudyStore) -> None:
        if act is not None:
            store.record_held_out(pipeline(Int8Spec()), act(pipeline(Int8Spec())))  # type: ignore[operator]

    view = study(folder, several_samples, fill=fill, evaluation=EvaluationConfig(**evaluation))
    return view, next(one for one in view.rows if one.spec == pipeline(Int8Spec()))


def test_held_out_prompts_are_compared_with_the_searchs_own(tmp_path: Path) -> None:
    view, one = held_out(tmp_path / "a", several_samples)
    assert one.measurement is not None
    figure = text.format_metric(SNR, one.measurement.metrics["snr_db"], interval(SNR, one.measurement.samples))
    assert text.held_out_line(view, one) == (
        f"on 2 held-out prompts: prediction SNR {figure}; on the 2 prompts of the search: prediction SNR {figure}"
    )
    worse = held_out(tmp_path / "b", lambda spec: measurement(spec, 5.0, hardness=STEEP))
    assert text.held_out_line(*worse).endswith(
        "; prediction SNR is worse on held-out prompts than the intervals explain"
    )


def test_why_there_are_no_held_out_prompts(tmp_path: Path) -> None:
    def failed(spec: PipelineSpec) -> Failure:
        return Failure(spec, ErrorType.device_lost, "it broke the device")

    no = "not confirmed on held-out prompts: "
    cases = [
        (held_out(tmp_path / "a", held_out=0), "evaluation.held_out=0"),
        (held_out(tmp_path / "b", prompts=8), "evaluation.prompts=8 uses every prompt of the model"),
        (held_out(tmp_path / "c"), "a sweep confirms only the winner under its own rule and budget"),
        (held_out(tmp_path / "d", failed), "failed, the device was lost: it broke the device"),
    ]
    assert len(MODEL.prompts) == 8
    for found, reason in cases:
        assert text.held_out_line(*found) == no + reason


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        (Placement(False, "host"), "the reference stays in host memory"),
        (
            Placement(False, "fits", 4 * 10**9, 2 * 10**9, 2 * 10**9, 70 * 10**9, 80 * 10**9),
            "the reference stays on the device: 4 GB of weights, 2 GB for their int8 copies and 2 GB for activations "
            "fit; 70 GB of 80 GB are free",
        ),
        (
            Placement(True, "too_large", 24 * 10**9, 12 * 10**9, 2 * 10**9, 15 * 10**9, 16 * 10**9, 10**9),
            "the reference stays on the host and is streamed layer by layer: 24 GB of weights, 12 GB for their int8 "
            "copies and 2 GB for activations do not fit; 15 GB of 16 GB are free (other processes hold 1 GB)",
        ),
        (
            Placement(True, "configured", 24 * 10**9, free_bytes=70 * 10**9, total_bytes=80 * 10**9),
            "the reference stays on the host and is streamed layer by layer, as lab.placement asks: 24 GB of weights; "
            "70 GB of 80 GB are free",
        ),
        (
            Placement(True, "configured"),
            "the reference stays on the host and is streamed layer by layer, as lab.placement asks",
        ),
    ],
)
def test_the_placement_says_what_decided_it(placement: Placement, expected: str) -> None:
    assert text.placement_line(placement) == expected


def test_a_large_skip_entry_says_what_it_costs() -> None:
    note = LargeSkipEntry("transformer", "attn", 1, 0.25, 2_500_000, 1_250_000, 8.0)
    assert text.large_skip_entry_line(note) == (
        "skip entry 'attn' keeps 1 layer of transformer in high precision, 25.0 % of the linear weights: 2.5 MB, "
        "1.25 MB more than at 8 bits a weight"
    )


def test_rank_correlations_are_said_with_their_interval(tmp_path: Path) -> None:
    def fill(store: StudyStore) -> None:
        for one in store.rows():
            if one.measurement is not None:
                store.record_images(one.spec, {"psnr_db": one.measurement.metrics["snr_db"], "ssim": 0.9})

    view = study(tmp_path / "s", fill=fill)
    found = rank_correlations(view.rows, view.images)
    line = text.correlations_line(SNR, found)
    assert line.startswith(
        "rank correlation of prediction SNR with the images of 14 settings (Spearman, 95 % interval): "
    )
    assert line.endswith(", SSIM undefined")
    few = {"psnr_db": RankCorrelation(1.0, None, None, 3)}
    assert text.correlations_line(SNR, few).endswith("of 3 settings (Spearman, 95 % interval): PSNR 1.00")
    assert text.correlations_line(SNR, {}) == ""


@pytest.mark.parametrize("code", [NO_TORCHVISION, NO_WEIGHTS, UNREADABLE, TOO_SMALL])
def test_every_reason_for_a_missing_image_metric_has_words(code: str) -> None:
    (line,) = text.unavailable_lines({"lpips": code})
    assert line.startswith("LPIPS was not computed: ")
    assert code not in line


def test_skipped_images_say_why() -> None:
    assert text.images_skipped_line("", "random_weights") == "no images are generated: the weights are random"
    assert text.images_skipped_line("", "none_asked") == "no images are generated: evaluation.images=0"
    line = text.images_skipped_line("nf4", "out_of_memory", "8 GB needed")
    assert line == "no images of nf4: out of memory (8 GB needed)"


def test_objectives_are_listed_with_their_directions() -> None:
    assert text.objectives_line(OBJECTIVES) == (
        "optimises prediction SNR (maximize), weight memory (minimize) and latency of one forward (minimize)"
    )
    assert text.objectives_line(objectives("snr_db")) == "optimises prediction SNR (maximize)"


@pytest.mark.parametrize(
    ("latency_ms", "line"),
    [
        ((10.5, 10.5), ""),
        ((15.0, 10.5), "1 of 2 settings on the front is host-bound: the device waits for the host"),
        ((15.0, 15.0), "2 of 2 settings on the front are host-bound: the device waits for the host"),
    ],
)
def test_settings_that_the_host_holds_up_are_counted(latency_ms: tuple[float, ...], line: str) -> None:
    whole = measurement(Int8Spec())
    some = [
        dataclasses.replace(whole, metrics=FrozenDict({**whole.metrics, "device_ms": 10.0, "latency_ms": ms}))
        for ms in latency_ms
    ]
    assert host_bound_line(some).startswith(line)
    assert bool(host_bound_line(some)) == bool(line)


def test_latencies_are_called_in_a_sentence_what_they_are() -> None:
    named = [noun(built_in()[name]) for name in ("device_ms", "host_ms", "latency_ms", "memory_bytes")]
    assert named == ["device time", "launch time", "latency", "weight memory"]
