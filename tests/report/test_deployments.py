"""What deployments change: sentences, a table and a plot, from cells alone."""

from __future__ import annotations

from fakes import measurement

from quantlab.frozen import FrozenDict
from quantlab.outcomes import Deployed, ErrorType, Failure
from quantlab.outcomes.serialization import from_dict, to_dict
from quantlab.report.text.compilations import compilations_line
from quantlab.report.text.deployments import cell_line, deployment_lines
from quantlab.spec import Int4Spec, Int8Spec, PipelineSpec, QuantSpec, ReferenceSpec
from quantlab.study.deployments import Cell, deployments_table, ratios

NF4, INT8 = Int4Spec(quant_type="nf4", compute_dtype="float16"), Int8Spec()
HOW = {"images": 1}


def cell(
    deployment: str, number: int, spec: QuantSpec, seconds: float | None, how: dict[str, int] | None = None
) -> Cell:
    whole = PipelineSpec({"transformer": spec})
    found: Deployed | Failure = Failure(whole, ErrorType.deployment_refused, "no room")
    if seconds is not None:
        found = Deployed(whole, (seconds, 2 * seconds, 0.5 * seconds), 1, 3.0, 10**9, FrozenDict(psnr_db=30.0))
    return Cell(deployment, number, spec.family, whole, how or HOW, found)


CELLS = [
    *(cell("eager", 0, ReferenceSpec(), 1.0), cell("eager", 1, NF4, 1.2), cell("eager", 2, INT8, 2.5)),
    *(cell("compiled", 0, ReferenceSpec(), 0.8), cell("compiled", 1, NF4, 1.6), cell("compiled", 2, INT8, 0.9)),
    *(cell("group_offload", 0, ReferenceSpec(), 3.0), cell("group_offload", 1, NF4, None)),
]


def test_ratios_are_to_the_reference_in_the_same_deployment() -> None:
    assert ratios(CELLS)["compiled", 1] == 2.0
    assert ("group_offload", 1) not in ratios(CELLS)
    other = [CELLS[0], cell("eager", 1, NF4, 1.2, {"images": 3})]
    assert ("eager", 1) not in ratios(other)  # it was called otherwise


def test_sentences_name_what_passes_what_and_what_is_refused() -> None:
    lines = deployment_lines(CELLS)
    assert "eager: int8 takes 2.5 times the reference" in lines
    assert "compiled: int8 (1.12 times the reference) passes nf4 (2.00); eager it is 2.50 to 1.20" in lines
    assert lines[-1] == "group_offload: nf4 failed, the deployment refused the setting: no room"


def test_a_cell_says_its_seconds_first_image_and_peak() -> None:
    assert cell_line(CELLS[1]) == "eager, nf4: 1.2 s an image, first image after 3 s, peak 1 GB, PSNR 30.0 dB"


def test_the_table_has_a_line_a_cell() -> None:
    table = deployments_table(CELLS)
    assert list(table["name"]) == [one.name for one in CELLS]
    assert table["failure"].tolist()[-1] == "deployment_refused"
    assert deployments_table([]).empty


def test_what_was_compiled_is_counted_over_all_settings() -> None:
    some = [
        measurement(NF4, compilations=2, compile_s=1.5),
        measurement(INT8, compilations=5, compile_s=8, graph_breaks=3),
    ]
    assert compilations_line(some) == "7 compilations in 9.5 s for 2 settings, 1 of which broke the graph"
    assert compilations_line([measurement(NF4)]) is None


def test_what_was_deployed_is_read_as_it_was_written() -> None:
    found = CELLS[0].outcome
    assert from_dict(to_dict(found)) == found
