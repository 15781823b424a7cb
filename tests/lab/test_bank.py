"""Forms are kept under a budget, which changes what is made anew and nothing else."""

import contextlib
import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.parity_cases import SKIPS, documented, in_memory, int4_specs, int8_specs, spec_sequences

from quantlab import Int4Spec, Int8Spec, Lab, ReferenceSpec
from quantlab.errors import ConfigError
from quantlab.lab import bank as banks
from quantlab.lab import forms
from quantlab.lab.bank import Bank
from quantlab.lab.memory import module_bytes

CPU = torch.device("cpu")
ELSEWHERE = torch.device("cpu", 0)
"""Equals the device of no tensor, so that every weight is streamed to it as from a host."""

SHARES = (0, 1 / 3, 1, math.inf)
"""Budgets as parts of the largest form."""

_DOCUMENTED: dict[str, tuple[str, int]] = {}


@pytest.fixture(scope="module")
def one_probe_lab():
    with Lab.open("tiny_sd3", "score.prompts=1", "score.timesteps=1", "score.images=0", device="cpu") as lab:
        yield lab


@pytest.fixture(scope="module")
def int8_bytes(one_probe_lab):
    bank = Bank(one_probe_lab.component, CPU)
    bank.assemble(Int8Spec())
    size = bank.form_bytes
    bank.clear()
    return size


@contextlib.contextmanager
def emptied(lab, budget_bytes, device=CPU):
    """The lab's component with a bank of its own."""
    before = lab._bank
    before.clear()
    lab._bank = Bank(lab.component, device, budget_bytes)
    try:
        yield lab._bank
    finally:
        lab._bank.clear()
        lab._bank = before


@contextlib.contextmanager
def making(bank):
    """Bytes that the bank held whenever a form was made."""
    held = []
    make = forms.make
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(banks.forms, "make", lambda *args: (held.append(bank.form_bytes), make(*args))[1])
        yield held


def made(bank, spec):
    with making(bank) as held:
        bank.assemble(spec)
    return len(held)


def in_place(bank):
    """The forms that stand in the component."""
    standing = {path: bank.component.get_submodule(path) for path in bank.layers}
    return [module for path, module in standing.items() if module is not bank.layers[path]]


def documented_once(lab, spec):
    if spec.key not in _DOCUMENTED:
        _DOCUMENTED[spec.key] = documented(lab, spec)
    return _DOCUMENTED[spec.key]


@settings(max_examples=4, deadline=None)
@given(specs=spec_sequences, share=st.sampled_from(SHARES), device=st.sampled_from([CPU, ELSEWHERE]))
def test_any_budget_and_any_sequence_of_settings_gives_what_from_pretrained_gives(
    one_probe_lab, int8_bytes, specs, share, device
):
    with emptied(one_probe_lab, share * int8_bytes, device):
        for spec in specs:
            assert in_memory(one_probe_lab, spec) == documented_once(one_probe_lab, spec), spec.key


@settings(max_examples=12, deadline=None)
@given(
    specs=st.lists(int8_specs | int4_specs | st.just(ReferenceSpec()), min_size=2, max_size=4),
    share=st.sampled_from(SHARES),
    device=st.sampled_from([CPU, ELSEWHERE]),
)
def test_forms_hold_no_more_than_the_budget_or_the_setting_at_hand(one_probe_lab, int8_bytes, specs, share, device):
    with emptied(one_probe_lab, share * int8_bytes, device) as bank:
        for spec in specs:
            with making(bank) as held:
                bank.assemble(spec)
            needed = in_place(bank)
            most = max(bank.budget_bytes, sum(map(module_bytes, needed)))
            assert bank.form_bytes == sum(map(module_bytes, bank._forms.values()))
            assert max([*held, bank.form_bytes]) <= most
            assert {id(module) for module in needed} <= {id(module) for module in bank._forms.values()}


def test_forms_that_a_smaller_setting_needs_no_more_leave_though_none_is_made(one_probe_lab):
    with emptied(one_probe_lab, 0) as bank:
        bank.assemble(Int4Spec())
        whole = bank.form_bytes
        assert made(bank, Int4Spec(skip=("attn",))) == 0
        assert bank.form_bytes == sum(map(module_bytes, in_place(bank))) < whole
        bank.assemble(ReferenceSpec())
        assert bank.form_bytes == 0


def test_a_budget_of_all_forms_makes_each_once(one_probe_lab):
    kinds = Int8Spec(), Int4Spec(), Int4Spec("fp4"), Int4Spec(double_quant=True)
    with emptied(one_probe_lab, math.inf) as bank:
        layers = len(bank.layers)
        assert [made(bank, spec) for spec in kinds] == [layers] * 4
        assert [made(bank, spec) for spec in kinds] == [0] * 4


@pytest.mark.parametrize("budget", [0, math.inf])
def test_settings_that_share_their_forms_make_none(one_probe_lab, budget):
    with emptied(one_probe_lab, budget) as bank:
        assert made(bank, Int8Spec(6)) == len(bank.layers)
        assert made(bank, Int8Spec(0)) == made(bank, Int8Spec(3, skip=SKIPS[2])) == 0
        assert made(bank, Int4Spec(compute_dtype="float16")) == len(bank.layers)
        assert made(bank, Int4Spec(compute_dtype="float32")) == 0


def test_the_least_recently_used_forms_leave_first(one_probe_lab):
    with emptied(one_probe_lab, math.inf) as bank:
        bank.assemble(Int8Spec())
        bank.assemble(Int4Spec("nf4"))
        bank.budget_bytes = bank.form_bytes
        bank.assemble(Int8Spec(3))
        bank.assemble(Int4Spec("fp4"))
        assert bank.form_bytes == bank.budget_bytes
        assert made(bank, Int8Spec()) == 0
        assert made(bank, Int4Spec("fp4")) == 0
        assert made(bank, Int4Spec("nf4")) == len(bank.layers)


def test_a_form_that_left_is_held_by_nothing(one_probe_lab):
    with emptied(one_probe_lab, 0) as bank:
        bank.assemble(Int8Spec())
        weights = [weakref.ref(module.weight) for module in in_place(bank)]
        bank.assemble(Int4Spec())
        assert not any(weight() is not None for weight in weights)


def test_clearing_makes_the_component_the_reference_again(one_probe_lab):
    with emptied(one_probe_lab, math.inf) as bank:
        bank.assemble(Int8Spec())
        weights = [weakref.ref(module.weight) for module in in_place(bank)]
        assert len(weights) == len(bank.layers)
        bank.clear()
        assert in_place(bank) == []
        assert bank.form_bytes == 0
        assert not any(weight() is not None for weight in weights)
        assert made(bank, Int8Spec()) == len(bank.layers)


def test_restoring_keeps_the_forms(one_probe_lab):
    with emptied(one_probe_lab, math.inf) as bank:
        bank.assemble(Int8Spec())
        bank.restore()
        assert in_place(bank) == []
        assert made(bank, Int8Spec()) == 0


def test_weights_elsewhere_stay_there_while_every_layer_runs_on_the_device(one_probe_lab):
    with emptied(one_probe_lab, 0, ELSEWHERE) as bank:
        before = {path: layer.weight.data_ptr() for path, layer in bank.layers.items()}
        resolution = bank.assemble(Int4Spec(skip=("attn",)))
        assert resolution.kept
        assert len(in_place(bank)) == len(bank.layers)
        assert not {module.weight.data_ptr() for module in in_place(bank)} & set(before.values())
        assert {path: layer.weight.data_ptr() for path, layer in bank.layers.items()} == before


def test_a_skip_list_is_resolved_once_for_each_method(one_probe_lab, monkeypatch):
    asked = []
    resolve = banks.resolve
    monkeypatch.setattr(banks, "resolve", lambda *args: (asked.append(args), resolve(*args))[1])
    with emptied(one_probe_lab, 0) as bank:
        int8 = bank.resolve(Int8Spec(6, skip=("attn",)))
        assert bank.resolve(Int8Spec(0, skip=("attn",))) is int8
        int4 = bank.resolve(Int4Spec(skip=("attn",)))
        assert bank.resolve(Int4Spec("fp4", skip=("attn",))) is int4
        assert bank.resolve(Int4Spec()).kept == ()
    assert len(asked) == 3
    assert int4.kept == int8.kept
    assert int4.notes != int8.notes


def test_a_skip_entry_that_matches_nothing_is_an_error_every_time(one_probe_lab):
    with emptied(one_probe_lab, 0) as bank:
        for _ in range(2):
            with pytest.raises(ConfigError, match="'nothing_of_the_kind'"):
                bank.assemble(Int8Spec(skip=("nothing_of_the_kind",)))
        assert in_place(bank) == []
