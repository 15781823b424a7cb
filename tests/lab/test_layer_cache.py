"""Layers are kept under a budget, which changes what is made anew and nothing else."""

import contextlib
import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.parity_cases import SKIPS, documented_once, int4_specs, int8_specs, spec_sequences

from quantlab import Int4Spec, Int8Spec, ReferenceSpec
from quantlab.bnb import layers as bnb_layers
from quantlab.errors import ConfigError
from quantlab.lab import layer_cache as layer_caches
from quantlab.lab.layer_cache import LayerCache
from quantlab.lab.replay import replay
from quantlab.metrics.memory import layer_bytes, weight_bytes

CPU = torch.device("cpu")
ELSEWHERE = torch.device("cpu", 0)
"""Equals the device of no tensor, so that every weight is streamed to it as from a host."""

SHARES = (0, 1 / 3, 1, math.inf)
"""Budgets as parts of the largest scheme."""


@pytest.fixture(scope="module")
def int8_bytes(one_sample_lab):
    with emptied(one_sample_lab, math.inf) as layer_cache:
        layer_cache.assemble(Int8Spec())
        return layer_cache.cached_bytes


@contextlib.contextmanager
def emptied(lab, budget_bytes, device=CPU):
    """A layer cache of its own on the lab's component, which is the reference before and after."""
    lab.layer_caches["transformer"].clear()
    layer_cache = LayerCache(lab.layer_caches["transformer"].component, device, budget_bytes)
    try:
        yield layer_cache
    finally:
        layer_cache.clear()


def measured(lab, layer_cache, spec):
    """Digest of the outputs on the lab's samples, and the bytes held."""
    layer_cache.assemble(spec)
    result = replay({"transformer": layer_cache.component}, lab.sample_set, CPU)
    return result.output_sha256, weight_bytes([layer_cache.component])


@contextlib.contextmanager
def making(layer_cache):
    """Bytes that the layer cache held whenever a layer was made."""
    held = []
    make = bnb_layers.make
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bnb_layers, "make", lambda *args: (held.append(layer_cache.cached_bytes), make(*args))[1])
        yield held


def made(layer_cache, spec):
    with making(layer_cache) as held:
        layer_cache.assemble(spec)
    return len(held)


def in_place(layer_cache):
    """The made layers that stand in the component."""
    standing = {path: layer_cache.component.get_submodule(path) for path in layer_cache.layers}
    return [module for path, module in standing.items() if module is not layer_cache.layers[path]]


@settings(max_examples=4, deadline=None)
@given(specs=spec_sequences, share=st.sampled_from(SHARES), device=st.sampled_from([CPU, ELSEWHERE]))
def test_any_budget_and_any_sequence_of_settings_gives_what_from_pretrained_gives(
    one_sample_lab, int8_bytes, specs, share, device
):
    with emptied(one_sample_lab, share * int8_bytes, device) as layer_cache:
        for spec in specs:
            assert measured(one_sample_lab, layer_cache, spec) == documented_once(one_sample_lab, spec), spec.key


@settings(max_examples=12, deadline=None)
@given(
    specs=st.lists(int8_specs | int4_specs | st.just(ReferenceSpec()), min_size=2, max_size=4),
    share=st.sampled_from(SHARES),
    device=st.sampled_from([CPU, ELSEWHERE]),
)
def test_layers_hold_no_more_than_the_budget_or_the_setting_at_hand(one_sample_lab, int8_bytes, specs, share, device):
    with emptied(one_sample_lab, share * int8_bytes, device) as layer_cache:
        for spec in specs:
            with making(layer_cache) as held:
                layer_cache.assemble(spec)
            needed = in_place(layer_cache)
            most = max(layer_cache.budget_bytes, sum(map(layer_bytes, needed)))
            assert layer_cache.cached_bytes == sum(map(layer_bytes, layer_cache.made))
            assert max([*held, layer_cache.cached_bytes]) <= most
            assert {id(module) for module in needed} <= {id(module) for module in layer_cache.made}


def test_layers_that_a_smaller_setting_needs_no_more_leave_though_none_is_made(one_sample_lab):
    with emptied(one_sample_lab, 0) as layer_cache:
        layer_cache.assemble(Int4Spec())
        whole = layer_cache.cached_bytes
        assert made(layer_cache, Int4Spec(skip=("attn",))) == 0
        assert layer_cache.cached_bytes == sum(map(layer_bytes, in_place(layer_cache))) < whole
        layer_cache.assemble(ReferenceSpec())
        assert layer_cache.cached_bytes == 0


def test_a_budget_of_all_layers_makes_each_once(one_sample_lab):
    kinds = Int8Spec(), Int4Spec(), Int4Spec("fp4"), Int4Spec(double_quant=True)
    with emptied(one_sample_lab, math.inf) as layer_cache:
        layers = len(layer_cache.layers)
        assert [made(layer_cache, spec) for spec in kinds] == [layers] * 4
        assert [made(layer_cache, spec) for spec in kinds] == [0] * 4


@pytest.mark.parametrize("budget", [0, math.inf])
def test_settings_that_share_their_layers_make_none(one_sample_lab, budget):
    with emptied(one_sample_lab, budget) as layer_cache:
        assert made(layer_cache, Int8Spec(6)) == len(layer_cache.layers)
        assert made(layer_cache, Int8Spec(0)) == made(layer_cache, Int8Spec(3, skip=SKIPS[2])) == 0
        assert made(layer_cache, Int4Spec(compute_dtype="float16")) == len(layer_cache.layers)
        assert made(layer_cache, Int4Spec(compute_dtype="float32")) == 0


def test_the_least_recently_used_layers_leave_first(one_sample_lab):
    with emptied(one_sample_lab, math.inf) as layer_cache:
        layer_cache.assemble(Int8Spec())
        layer_cache.assemble(Int4Spec("nf4"))
        layer_cache.budget_bytes = layer_cache.cached_bytes
        layer_cache.assemble(Int8Spec(3))
        layer_cache.assemble(Int4Spec("fp4"))
        assert layer_cache.cached_bytes == layer_cache.budget_bytes
        assert made(layer_cache, Int8Spec()) == 0
        assert made(layer_cache, Int4Spec("fp4")) == 0
        assert made(layer_cache, Int4Spec("nf4")) == len(layer_cache.layers)


def test_a_layer_that_left_is_held_by_nothing(one_sample_lab):
    with emptied(one_sample_lab, 0) as layer_cache:
        layer_cache.assemble(Int8Spec())
        weights = [weakref.ref(module.weight) for module in in_place(layer_cache)]
        layer_cache.assemble(Int4Spec())
        assert not any(weight() is not None for weight in weights)


def test_clearing_makes_the_component_the_reference_again(one_sample_lab):
    with emptied(one_sample_lab, math.inf) as layer_cache:
        layer_cache.assemble(Int8Spec())
        weights = [weakref.ref(module.weight) for module in in_place(layer_cache)]
        assert len(weights) == len(layer_cache.layers)
        layer_cache.clear()
        assert in_place(layer_cache) == []
        assert layer_cache.cached_bytes == 0
        assert not any(weight() is not None for weight in weights)
        assert made(layer_cache, Int8Spec()) == len(layer_cache.layers)


def test_restoring_keeps_the_layers(one_sample_lab):
    with emptied(one_sample_lab, math.inf) as layer_cache:
        layer_cache.assemble(Int8Spec())
        layer_cache.restore()
        assert in_place(layer_cache) == []
        assert made(layer_cache, Int8Spec()) == 0


def test_weights_elsewhere_stay_there_while_every_layer_runs_on_the_device(one_sample_lab):
    with emptied(one_sample_lab, 0, ELSEWHERE) as layer_cache:
        before = {path: layer.weight.data_ptr() for path, layer in layer_cache.layers.items()}
        resolution = layer_cache.assemble(Int4Spec(skip=("attn",)))
        assert resolution.kept
        assert len(in_place(layer_cache)) == len(layer_cache.layers)
        assert not {module.weight.data_ptr() for module in in_place(layer_cache)} & set(before.values())
        assert {path: layer.weight.data_ptr() for path, layer in layer_cache.layers.items()} == before


def test_a_skip_list_is_resolved_once_for_each_method(one_sample_lab, monkeypatch):
    asked = []
    resolve = layer_caches.resolve
    monkeypatch.setattr(layer_caches, "resolve", lambda *args: (asked.append(args), resolve(*args))[1])
    with emptied(one_sample_lab, 0) as layer_cache:
        int8 = layer_cache.resolve(Int8Spec(6, skip=("attn",)))
        assert layer_cache.resolve(Int8Spec(0, skip=("attn",))) is int8
        int4 = layer_cache.resolve(Int4Spec(skip=("attn",)))
        assert layer_cache.resolve(Int4Spec("fp4", skip=("attn",))) is int4
        assert layer_cache.resolve(Int4Spec()).kept == ()
    assert len(asked) == 3
    assert int4.kept == int8.kept
    assert int4.notes != int8.notes


def test_a_skip_entry_that_matches_nothing_is_an_error_every_time(one_sample_lab):
    with emptied(one_sample_lab, 0) as layer_cache:
        for _ in range(2):
            with pytest.raises(ConfigError, match="'nothing_of_the_kind'"):
                layer_cache.assemble(Int8Spec(skip=("nothing_of_the_kind",)))
        assert in_place(layer_cache) == []
