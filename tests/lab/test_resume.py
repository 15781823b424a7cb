"""A forward that starts at a block gives what a whole one gives, bit for bit."""

from __future__ import annotations

import contextlib

import pytest
import torch
from lab.parity_cases import transformer
from lab.toy import Block, InPlace, Reader, Toy, Writer, measurer, prepared
from torch import nn

from quantlab import Int4Spec, Int8Spec, ReferenceSpec
from quantlab.bnb.linear import linear_layers
from quantlab.lab.resume import Prefix, units

SCHEMES = {"reference": None, "nf4": Int4Spec(), "int8": Int8Spec(6.0)}


@contextlib.contextmanager
def computed(component):
    """Paths of the linear layers that are computed inside, as often as they are."""
    found, linear = [], torch.nn.functional.linear
    paths = {layer.weight.data_ptr(): path for path, layer in linear_layers(component).items()}

    def count(x, weight, bias=None):
        found.append(paths.get(weight.data_ptr()))
        return linear(x, weight, bias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", count)
        yield found


@pytest.fixture(scope="module")
def sd3(lab):
    """The embedded component, a forward of it, and what its units gave."""
    lab.assemble(ReferenceSpec())
    sample = lab.sample_set.samples[1]

    @torch.no_grad()
    def forward():
        return transformer(lab)(**sample.inputs)[0]

    return forward, Prefix(transformer(lab), forward), sample.output[0]


SD3_UNITS = (
    *("pos_embed", "time_text_embed", "context_embedder"),
    *(f"transformer_blocks.{index}" for index in range(6)),
    *("norm_out", "proj_out"),
)


def test_the_units_of_the_embedded_model_are_its_children_and_blocks(lab):
    assert sorted(units(transformer(lab))) == sorted(SD3_UNITS)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("unit", SD3_UNITS)
def test_a_forward_from_any_unit_on_equals_the_whole_one(lab, sd3, unit, scheme):
    forward, prefix, reference = sd3
    lab.assemble(ReferenceSpec())
    inside = [layer for layer in linear_layers(transformer(lab)) if prefix.unit_of(layer) == unit]
    if scheme == "reference":
        assert torch.equal(prefix.resume(unit, forward), reference)
        return
    if not inside:
        pytest.skip("no linear layer in it")
    with lab.layer_caches["transformer"].exchanged(inside[-1], SCHEMES[scheme]):
        whole = forward()
        assert torch.equal(prefix.resume(unit, forward), whole)
    assert not torch.equal(whole, reference)


@pytest.mark.parametrize("unit", ["time_text_embed", "context_embedder", "transformer_blocks.3", "proj_out"])
def test_nothing_before_the_unit_is_computed_and_everything_after_is(lab, sd3, unit):
    forward, prefix, _ = sd3
    lab.assemble(ReferenceSpec())
    after = SD3_UNITS[SD3_UNITS.index(unit) :]
    with computed(transformer(lab)) as layers:
        prefix.resume(unit, forward)
    assert set(layers) == {layer for layer in linear_layers(transformer(lab)) if prefix.unit_of(layer) in after}
    assert len(layers) == len(set(layers))


def test_a_forward_that_ended_leaves_every_forward_as_it_was(lab, sd3):
    forward, prefix, _ = sd3
    lab.assemble(ReferenceSpec())
    before = {path: dict(module.__dict__) for path, module in transformer(lab).named_modules()}
    prefix.resume("norm_out", forward)

    def fails():
        forward()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prefix.resume("proj_out", fails)
    after = {path: dict(module.__dict__) for path, module in transformer(lab).named_modules()}
    assert all("forward" not in attributes for attributes in after.values())
    assert after.keys() == before.keys()
    assert all(after[path].keys() == before[path].keys() for path in after)
    assert not any(module._forward_hooks for module in transformer(lab).modules())


def test_a_forward_that_another_library_put_on_a_unit_is_there_again():
    component = Toy(Block())
    _, (sample,) = prepared(component)
    own, calls = component.enter.forward, []
    component.enter.forward = lambda x: (calls.append(1), own(x))[1]
    hooked = component.enter.forward
    prefix = Prefix(component, lambda: component(**sample.inputs)[0])
    assert torch.equal(prefix.resume("leave", lambda: component(**sample.inputs)[0]), sample.output[0])
    assert component.enter.forward is hooked
    assert len(calls) == 1


@pytest.mark.parametrize("unit", ["enter", "blocks.0", "blocks.1", "heads.one", "heads.two", "leave"])
def test_plain_children_and_those_of_lists_and_dicts_are_units(unit):
    component = Toy(Block(), Block())
    layer_cache, (sample,) = prepared(component)
    prefix = Prefix(component, lambda: component(**sample.inputs)[0])
    assert list(units(component)) == ["enter", "blocks.0", "blocks.1", "heads.one", "heads.two", "leave"]
    layer = next(path for path in layer_cache.layers if prefix.unit_of(path) == unit)
    with layer_cache.exchanged(layer, Int4Spec()):
        whole = component(**sample.inputs)[0]
        with computed(component) as layers:
            assert torch.equal(prefix.resume(unit, lambda: component(**sample.inputs)[0]), whole)
    first = list(layer_cache.layers).index(layer)
    assert {path for path in layers if path} == set(list(layer_cache.layers)[first:]) - {layer}


@pytest.mark.parametrize("unit", ["blocks.0", "blocks.1", "blocks.2"])
def test_a_unit_that_is_called_twice_is_computed_from_its_first_call_on(unit):
    component = Toy(Block(), Block(), Block(), order=(0, 1, 0, 2))
    layer_cache, (sample,) = prepared(component)
    prefix = Prefix(component, lambda: component(**sample.inputs)[0])
    with layer_cache.exchanged(f"{unit}.up", Int4Spec()):
        whole = component(**sample.inputs)[0]
        with computed(component) as layers:
            assert torch.equal(prefix.resume(unit, lambda: component(**sample.inputs)[0]), whole)
    assert layers.count("blocks.0.down") == {"blocks.0": 2, "blocks.1": 1, "blocks.2": 0}[unit]


def _stateful():
    writer = Writer()
    return Toy(writer, Block(), Reader(writer))


UNRULY = {
    "a block that changes its input": lambda: Toy(Block(), InPlace(), Block()),
    "one that is called after blocks that stand behind it": lambda: Toy(Block(), InPlace(), Block(), order=(2, 1, 0)),
    "two of them": lambda: Toy(InPlace(), Block(), InPlace(), order=(1, 2, 0)),
    "a block that reads what another left": _stateful,
}


@pytest.mark.parametrize("kind", UNRULY)
def test_blocks_that_are_no_functions_of_their_inputs_are_measured_by_whole_forwards(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))
    layer_cache, samples = prepared(UNRULY[kind](), samples=2)
    tables = [measurer(layer_cache, samples, resume, name=kind).run().table for resume in (True, False)]
    errors = [table.set_index(["layer", "scheme"])["error"] for table in tables]
    assert errors[0].equals(errors[1])
    assert (errors[0].dropna() > 0).mean() > 0.9


def test_a_profile_computes_nothing_before_the_layer_it_measures(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))
    layer_cache, samples = prepared(Toy(Block(), Block(), Block(), Block()))
    measurer(layer_cache, samples, name="with all forms made").run()
    counts = []
    for resume in (True, False):
        with computed(layer_cache.component) as layers:
            measurer(layer_cache, samples, resume).run()
        counts.append({path: layers.count(path) for path in ("enter.up", "leave")})
    resumed, whole = counts
    assert resumed["leave"] >= whole["leave"] > 20
    assert resumed["enter.up"] < whole["enter.up"] / 2


class Nested(nn.Module):
    """Blocks in a list of lists, which is never called itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.ModuleList([Block(), Block()])])

    def forward(self, x):
        for block in self.stages[0]:
            x = block(x)
        return (x,)


def test_what_is_called_nowhere_as_a_unit_runs_whole():
    component = Nested()
    layer_cache, (sample,) = prepared(component)
    prefix = Prefix(component, lambda: component(**sample.inputs)[0])
    with layer_cache.exchanged("stages.0.1.up", Int4Spec()):
        whole = component(**sample.inputs)[0]
        unit = prefix.unit_of("stages.0.1.up")
        assert torch.equal(prefix.resume(unit, lambda: component(**sample.inputs)[0]), whole)
