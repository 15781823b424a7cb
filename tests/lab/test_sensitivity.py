"""What a layer alone costs and saves is what the component shows when that layer alone is exchanged."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lab.toy import Block, Toy, prepared, profiler

from quantlab import Int4Spec, Int8Spec, ReferenceSpec
from quantlab.config import ProfileConfig
from quantlab.errors import ConfigError
from quantlab.lab.bank import Bank
from quantlab.lab.forms import is_quantized
from quantlab.lab.memory import held_bytes
from quantlab.lab.sensitivity import chosen_probes, profiled_specs
from quantlab.profile.predict import Predictor

CONFIG = ProfileConfig(probes=1, llm_int8_threshold=[6.0], bnb_4bit_quant_type=["nf4"])
FORMS = [Int8Spec(6.0), Int4Spec(), Int4Spec(double_quant=True)]


@pytest.fixture(scope="module")
def sd3_profile(lab):
    """The embedded model's profile, and how far the report said it was."""
    said = []
    profile = lab.profile(CONFIG, {"model": "tiny_sd3"}, lambda done, of: said.append((done, of)))
    return profile, said


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))


def forward(lab, probe):
    with torch.no_grad():
        return lab.component(**probe.inputs)[0]


def errors_of(profile):
    return profile.table.set_index(["layer", "form"])["error"]


@pytest.mark.parametrize("spec", FORMS[:2], ids=str)
@pytest.mark.parametrize(
    "layer", ["context_embedder", "transformer_blocks.2.attn.to_q", "transformer_blocks.5.ff.net.2", "proj_out"]
)
def test_the_error_of_a_layer_is_that_of_the_setting_which_quantizes_it_alone(lab, sd3_profile, layer, spec):
    profile, _ = sd3_profile
    probe = lab.probe_set.probes[0]
    lab.assemble(ReferenceSpec())
    with lab._bank.exchanged(layer, spec):
        assert is_quantized(lab.component.get_submodule(layer))
        output = forward(lab, probe).double()
    error = (output - probe.output.double()).square().sum().item()
    assert errors_of(profile)[layer, spec.key] == error > 0
    assert profile.signal == probe.output.double().square().sum().item()


def test_every_layer_has_a_line_a_form_in_the_order_of_the_component(lab, sd3_profile):
    profile, _ = sd3_profile
    assert profile.layers == tuple(lab._bank.layers)
    assert profile.forms == [spec.key for spec in FORMS]
    assert list(zip(profile.table["layer"], profile.table["form"], strict=True)) == [
        (layer, spec.key) for layer in lab._bank.layers for spec in FORMS
    ]
    assert profile.measured_forms == [spec.key for spec in FORMS[:2]]
    assert profile.parameters.tolist() == [layer.weight.numel() for layer in lab._bank.layers.values()]
    assert profile.probes == 1


@pytest.mark.parametrize(
    "spec",
    [
        Int8Spec(6.0),
        Int8Spec(0.0, ("transformer_blocks.3", "proj_out")),
        Int4Spec(skip=("attn",)),
        Int4Spec(double_quant=True, skip=("ff", "norm_out")),
    ],
    ids=str,
)
def test_the_bytes_that_layers_save_add_up_to_those_of_the_component(lab, sd3_profile, spec):
    profile, _ = sd3_profile
    resolution = lab.resolve(spec)
    lab.assemble(spec)
    held = held_bytes(lab.component)
    lab.assemble(ReferenceSpec())
    assert profile.reference_bytes == held_bytes(lab.component)
    saved = dict(zip(profile.layers, profile.saved(spec), strict=True))
    assert held == profile.reference_bytes - sum(saved[layer] for layer in resolution.quantized)


@pytest.mark.parametrize("has_fp16_weight", [False, True])
def test_memory_is_predicted_with_the_16_bit_weights_that_int8_may_hold(lab, sd3_profile, has_fp16_weight):
    profile, _ = sd3_profile
    spec = Int8Spec(6.0, ("proj_out",), has_fp16_weight)
    assert Predictor(profile).predict(spec).memory_bytes == lab.measure(spec, probes=1).memory_bytes


@pytest.mark.parametrize("layer", ["transformer_blocks.0.ff.net.0.proj", "time_text_embed.timestep_embedder.linear_1"])
def test_activations_and_shares_of_outliers_are_those_that_the_layer_is_given(lab, sd3_profile, layer):
    profile, _ = sd3_profile
    lab.assemble(ReferenceSpec())
    given = []
    handle = lab.component.get_submodule(layer).register_forward_pre_hook(lambda module, args: given.append(args[0]))
    forward(lab, lab.probe_set.probes[0])
    handle.remove()
    (activation,) = given
    lines = profile.table[profile.table["layer"] == layer]
    assert set(lines["largest_activation"]) == {activation.abs().max().item()}
    columns = activation.flatten(0, -2).abs()
    assert profile.thresholds
    for threshold in profile.thresholds:
        share = sum((columns[:, i] >= threshold).any().item() for i in range(columns.shape[1])) / columns.shape[1]
        assert lines[f"outlier_share_{threshold:g}"].tolist() == pytest.approx([share] * len(lines))
    assert 0 < lines["outlier_share_1"].iloc[0] <= 1


def test_afterwards_the_component_is_the_reference_and_the_bank_whole(lab, sd3_profile):
    lab._bank.restore()
    assert all(lab.component.get_submodule(path) is layer for path, layer in lab._bank.layers.items())
    probe = lab.probe_set.probes[0]
    assert torch.equal(forward(lab, probe), probe.output)
    lab.assemble(Int4Spec())
    assert not torch.equal(forward(lab, probe), probe.output)
    lab.assemble(ReferenceSpec())


def test_the_report_ends_with_all_layers_done(lab, sd3_profile):
    _, said = sd3_profile
    count = len(lab._bank.layers)
    assert said[-1] == (count, count)
    assert [done for done, _ in said] == sorted(done for done, _ in said)


def test_a_profile_that_is_known_runs_no_forward(lab, sd3_profile):
    profile, _ = sd3_profile
    with counted(lab.component) as calls:
        again = lab.profile(CONFIG, {"model": "tiny_sd3"})
    assert calls.count == 0
    assert again.table.equals(profile.table)
    assert again.fingerprint == profile.fingerprint


class counted:  # noqa: N801
    """Counts a component's forwards, whole ones and resumed ones."""

    def __init__(self, component, stop_at=math.inf):
        self.count, self._component, self._stop_at = 0, component, stop_at

    def __enter__(self):
        def count(module, args):
            if self.count >= self._stop_at:
                raise KeyboardInterrupt
            self.count += 1

        self._handle = self._component.register_forward_pre_hook(count)
        return self

    def __exit__(self, *error):
        self._handle.remove()


@pytest.mark.usefixtures("own_cache")
def test_whole_forwards_give_the_same_table():
    bank, probes = prepared(Toy(Block(), Block()), probes=2)
    resumed, whole = (profiler(bank, probes, resume).run() for resume in (True, False))
    assert errors_of(resumed).equals(errors_of(whole))
    same = ["layer", "block", "form", "parameters", "bytes", "bytes_saved", "signal", "largest_activation"]
    assert resumed.table[same].equals(whole.table[same])


@pytest.mark.usefixtures("own_cache")
def test_errors_and_signals_add_up_over_the_probes_and_shares_are_means():
    bank, probes = prepared(Toy(Block()), probes=2)
    one, two = (profiler(bank, [probe], name=str(probe.step)).run() for probe in probes)
    both = profiler(bank, probes).run()
    assert both.signal == one.signal + two.signal
    assert errors_of(both).dropna().tolist() == (errors_of(one) + errors_of(two)).dropna().tolist()
    of = [profile.table for profile in (one, two, both)]
    assert of[2]["largest_activation"].tolist() == np.maximum(*(t["largest_activation"] for t in of[:2])).tolist()
    means = (of[0]["outlier_share_2"] + of[1]["outlier_share_2"]) / 2
    assert of[2]["outlier_share_2"].tolist() == pytest.approx(means.tolist())


def test_a_profile_that_was_interrupted_measures_only_what_is_missing(tmp_path, monkeypatch):
    bank, probes = prepared(Toy(Block()), probes=2)
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "whole"))
    with counted(bank.component) as one_probe:
        profiler(bank, probes[:1]).run()
    with counted(bank.component) as second_probe:
        whole = profiler(bank, probes).run()
    assert 0 < second_probe.count < one_probe.count  # the costs and the first probe are known
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "interrupted"))
    with counted(bank.component) as all_of_it:
        profiler(bank, probes, name="uninterrupted").run()
    assert all_of_it.count == one_probe.count + second_probe.count
    with pytest.raises(KeyboardInterrupt), counted(bank.component, stop_at=second_probe.count + 3):
        profiler(bank, probes).run()
    with counted(bank.component) as rest:
        continued = profiler(bank, probes).run()
    assert rest.count == all_of_it.count - second_probe.count
    assert errors_of(continued).equals(errors_of(whole))
    with counted(bank.component) as nothing:
        profiler(bank, probes).run()
    assert nothing.count == 0
    assert torch.equal(bank.component(probes[0].inputs["x"])[0], probes[0].output)


@pytest.mark.usefixtures("own_cache")
def test_a_form_whose_error_was_not_wanted_before_is_measured_now():
    bank, probes = prepared(Toy(Block()))
    costs_only = profiled_specs(
        ProfileConfig(bnb_4bit_use_double_quant=[False], bnb_4bit_quant_type=["nf4"]), "float16"
    )
    everything = profiled_specs(
        ProfileConfig(bnb_4bit_use_double_quant=[False, True], bnb_4bit_quant_type=["nf4"]), "float16"
    )
    before = profiler(bank, probes, specs=costs_only).run()
    after = profiler(bank, probes, specs=everything).run()
    assert FORMS[2].key in before.forms
    assert FORMS[2].key not in before.measured_forms
    assert FORMS[2].key in after.measured_forms


@pytest.mark.usefixtures("own_cache")
def test_a_layer_that_overflows_on_one_probe_alone_has_an_infinite_error():
    bank, probes = prepared(Toy(Block()), probes=2)

    def overflow(module, args, kwargs, output):
        alone = is_quantized(module.leave) and kwargs["x"] is probes[1].inputs["x"]
        return (output[0] * math.nan,) if alone else output

    bank.component.register_forward_hook(overflow, with_kwargs=True)
    profile = profiler(bank, probes).run()
    errors = profile.errors(Int8Spec(6.0))
    assert errors[-1] == math.inf
    assert np.isfinite(errors[:-1]).all()


def test_forms_that_are_asked_for_twice_are_measured_once():
    whole, rest = profiled_specs(
        ProfileConfig(llm_int8_threshold=[6, 6.0, 0], bnb_4bit_quant_type=["nf4", "nf4"]), "bfloat16"
    )
    assert whole == [Int8Spec(6.0), Int8Spec(0.0), Int4Spec(compute_dtype="bfloat16")]
    assert rest == [Int4Spec(double_quant=True, compute_dtype="bfloat16")]


def test_no_form_at_all_and_unknown_types_are_errors():
    with pytest.raises(ConfigError, match=r"profile\.llm_int8_threshold and profile\.bnb_4bit_quant_type are empty"):
        profiled_specs(ProfileConfig(llm_int8_threshold=[], bnb_4bit_quant_type=[]), "float16")
    with pytest.raises(ConfigError, match=r"'nf5'.*nf4"):
        profiled_specs(ProfileConfig(bnb_4bit_quant_type=["nf5"]), "float16")


@pytest.mark.parametrize("count", [0, -1])
def test_no_probe_at_all_is_an_error(count):
    with pytest.raises(ConfigError, match=rf"profile\.probes={count} must be at least 1"):
        chosen_probes(SimpleNamespace(probes=(1, 2, 3)), count)


def test_the_first_probes_are_taken_as_far_as_there_are():
    probe_set = SimpleNamespace(probes=(1, 2, 3))
    assert chosen_probes(probe_set, None) == chosen_probes(probe_set, 4) == (1, 2, 3)
    assert chosen_probes(probe_set, 2) == (1, 2)


@pytest.mark.parametrize("budget_bytes", [0, math.inf])
def test_a_streamed_component_that_fits_has_the_profile_of_a_resident_one(own_cache, budget_bytes):
    resident, probes = prepared(Toy(Block(), Block()), probes=2)
    elsewhere = torch.device("cpu", 0)  # equals the device of no tensor, so that every weight is streamed to it
    streamed = Bank(prepared(Toy(Block(), Block()))[0].component, elsewhere, budget_bytes)
    one = profiler(resident, probes, name="resident").run().table
    other = profiler(streamed, probes, name=f"streamed {budget_bytes}").run().table
    assert streamed.form_bytes > 0
    timed = [name for name in one.columns if "latency" in name]
    assert one.drop(columns=timed).equals(other.drop(columns=timed))
