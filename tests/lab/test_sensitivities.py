"""What a layer alone costs and saves is what the component shows when that layer alone is exchanged."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lab.parity_cases import transformer
from lab.toy import Block, Toy, measurer, prepared

from quantlab import Int4Spec, Int8Spec, ReferenceSpec
from quantlab.bnb.layers import is_quantized
from quantlab.config import SensitivityConfig
from quantlab.errors import ConfigError, KernelError
from quantlab.lab.layer_cache import LayerCache
from quantlab.lab.sensitivities import chosen_samples, measure_sensitivities
from quantlab.metrics.memory import weight_bytes
from quantlab.sensitivity.schemes import schemes

CONFIG = SensitivityConfig(samples=1, llm_int8_threshold=[6.0], bnb_4bit_quant_type=["nf4"])
SCHEMES = [Int8Spec(6.0), Int4Spec(), Int4Spec(double_quant=True)]


@pytest.fixture(scope="module")
def sd3_sensitivities(lab):
    """The embedded model's sensitivities, and how far the report said it was."""
    said = []
    sensitivities = measure_sensitivities(
        lab, "transformer", CONFIG, {"model": "tiny_sd3"}, lambda done, total: said.append((done, total))
    )
    return sensitivities, said


class ByKeyword(Block):
    """Calls its layers by keyword."""

    def forward(self, x):
        return x + self.down(input=torch.tanh(self.up(input=x)))


def test_a_call_that_quantized_layers_do_not_take_is_a_kernel_s_refusal(own_cache):
    """Kind: a call in another form than most models make; quantized layers call their input by another name."""
    with pytest.raises(KernelError, match=r"every block, llm_int8 t=6: TypeError: .*argument 'input'"):
        measurer(*prepared(Toy(ByKeyword()))).run()


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))


def forward(lab, sample):
    with torch.no_grad():
        return transformer(lab)(**sample.inputs)[0]


def errors_of(sensitivities):
    return sensitivities.table.set_index(["layer", "scheme"])["error"]


@pytest.mark.parametrize("spec", SCHEMES[:2], ids=str)
@pytest.mark.parametrize(
    "layer", ["context_embedder", "transformer_blocks.2.attn.to_q", "transformer_blocks.5.ff.net.2", "proj_out"]
)
def test_the_error_of_a_layer_is_that_of_the_setting_which_quantizes_it_alone(lab, sd3_sensitivities, layer, spec):
    sensitivities, _ = sd3_sensitivities
    sample = lab.sample_set.samples[0]
    lab.assemble(ReferenceSpec())
    with lab.layer_caches["transformer"].exchanged(layer, spec):
        assert is_quantized(transformer(lab).get_submodule(layer))
        output = forward(lab, sample).double()
    error = (output - sample.output[0].double()).square().sum().item()
    assert errors_of(sensitivities)[layer, spec.key] == error > 0
    assert sensitivities.signal == sample.output[0].double().square().sum().item()


def test_every_layer_has_a_line_a_scheme_in_the_order_of_the_component(lab, sd3_sensitivities):
    sensitivities, _ = sd3_sensitivities
    assert sensitivities.layers == tuple(lab.layer_caches["transformer"].layers)
    assert list(sensitivities.specs) == SCHEMES
    assert list(zip(sensitivities.table["layer"], sensitivities.table["scheme"], strict=True)) == [
        (layer, spec.key) for layer in lab.layer_caches["transformer"].layers for spec in SCHEMES
    ]
    assert list(sensitivities.measured_specs) == SCHEMES[:2]
    assert sensitivities.parameters.tolist() == [
        layer.weight.numel() for layer in lab.layer_caches["transformer"].layers.values()
    ]
    assert (sensitivities.component, sensitivities.samples) == ("transformer", 1)


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
def test_the_bytes_that_layers_save_add_up_to_those_of_the_component(lab, sd3_sensitivities, spec):
    sensitivities, _ = sd3_sensitivities
    resolution = lab.resolve(spec)["transformer"]
    lab.assemble(spec)
    held = weight_bytes([transformer(lab)])
    lab.assemble(ReferenceSpec())
    assert sensitivities.reference_bytes == weight_bytes([transformer(lab)])
    saved = dict(zip(sensitivities.layers, sensitivities.saved(spec), strict=True))
    assert held == sensitivities.reference_bytes - sum(saved[layer] for layer in resolution.quantized)


@pytest.mark.parametrize("has_fp16_weight", [False, True])
def test_the_16_bit_weights_that_int8_may_hold_are_in_the_bytes(lab, sd3_sensitivities, has_fp16_weight):
    sensitivities, _ = sd3_sensitivities
    spec = Int8Spec(6.0, ("proj_out",), has_fp16_weight)
    kept = np.array([layer == "proj_out" for layer in sensitivities.layers])
    held = sensitivities.reference_bytes - sensitivities.saved(spec)[~kept].sum()
    assert held == lab.measure(spec, samples=1).memory_bytes


def test_a_component_that_the_lab_does_not_have_is_an_error(lab):
    with pytest.raises(ConfigError, match=r"component='transfomer'.*Did you mean 'transformer'\?"):
        measure_sensitivities(lab, "transfomer", CONFIG, {})


@pytest.mark.parametrize("layer", ["transformer_blocks.0.ff.net.0.proj", "time_text_embed.timestep_embedder.linear_1"])
def test_activations_and_shares_of_outliers_are_those_that_the_layer_is_given(lab, sd3_sensitivities, layer):
    sensitivities, _ = sd3_sensitivities
    lab.assemble(ReferenceSpec())
    given = []
    handle = (
        lab.layer_caches["transformer"]
        .component.get_submodule(layer)
        .register_forward_pre_hook(lambda module, args: given.append(args[0]))
    )
    forward(lab, lab.sample_set.samples[0])
    handle.remove()
    (activation,) = given
    lines = sensitivities.table[sensitivities.table["layer"] == layer]
    assert set(lines["largest_activation"]) == {activation.abs().max().item()}
    columns = activation.flatten(0, -2).abs()
    assert sensitivities.thresholds
    for threshold in sensitivities.thresholds:
        share = sum((columns[:, i] >= threshold).any().item() for i in range(columns.shape[1])) / columns.shape[1]
        assert lines[f"outlier_share_{threshold:g}"].tolist() == pytest.approx([share] * len(lines))
    assert 0 < lines["outlier_share_1"].iloc[0] <= 1


def test_afterwards_the_component_is_the_reference_and_the_layer_cache_whole(lab, sd3_sensitivities):
    lab.layer_caches["transformer"].restore()
    assert all(
        transformer(lab).get_submodule(path) is layer for path, layer in lab.layer_caches["transformer"].layers.items()
    )
    sample = lab.sample_set.samples[0]
    assert torch.equal(forward(lab, sample), sample.output[0])
    lab.assemble(Int4Spec())
    assert not torch.equal(forward(lab, sample), sample.output[0])
    lab.assemble(ReferenceSpec())


def test_the_report_ends_with_all_layers_done(lab, sd3_sensitivities):
    _, said = sd3_sensitivities
    count = len(lab.layer_caches["transformer"].layers)
    assert said[-1] == (count, count)
    assert [done for done, _ in said] == sorted(done for done, _ in said)


def test_sensitivities_that_is_known_runs_no_forward(lab, sd3_sensitivities):
    sensitivities, _ = sd3_sensitivities
    with counted(transformer(lab)) as calls:
        again = measure_sensitivities(lab, "transformer", CONFIG, {"model": "tiny_sd3"})
    assert calls.count == 0
    assert again.table.equals(sensitivities.table)
    assert again.fingerprint == sensitivities.fingerprint


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
    layer_cache, samples = prepared(Toy(Block(), Block()), samples=2)
    resumed, whole = (measurer(layer_cache, samples, resume).run() for resume in (True, False))
    assert errors_of(resumed).equals(errors_of(whole))
    same = ["layer", "block", "scheme", "parameters", "bytes", "bytes_saved", "signal", "largest_activation"]
    assert resumed.table[same].equals(whole.table[same])


@pytest.mark.usefixtures("own_cache")
def test_errors_and_signals_add_up_over_the_samples_and_shares_are_means():
    layer_cache, samples = prepared(Toy(Block()), samples=2)
    one, two = (measurer(layer_cache, [sample], name=str(sample.step)).run() for sample in samples)
    both = measurer(layer_cache, samples).run()
    assert both.signal == one.signal + two.signal
    assert errors_of(both).dropna().tolist() == (errors_of(one) + errors_of(two)).dropna().tolist()
    of = [sensitivities.table for sensitivities in (one, two, both)]
    assert of[2]["largest_activation"].tolist() == np.maximum(*(t["largest_activation"] for t in of[:2])).tolist()
    means = (of[0]["outlier_share_2"] + of[1]["outlier_share_2"]) / 2
    assert of[2]["outlier_share_2"].tolist() == pytest.approx(means.tolist())


def test_sensitivities_that_was_interrupted_measures_only_what_is_missing(tmp_path, monkeypatch):
    layer_cache, samples = prepared(Toy(Block()), samples=2)
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "whole"))
    with counted(layer_cache.component) as one_sample:
        measurer(layer_cache, samples[:1]).run()
    with counted(layer_cache.component) as second_sample:
        whole = measurer(layer_cache, samples).run()
    assert 0 < second_sample.count < one_sample.count  # the costs and the first sample are known
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "interrupted"))
    with counted(layer_cache.component) as all_of_it:
        measurer(layer_cache, samples, name="uninterrupted").run()
    assert all_of_it.count == one_sample.count + second_sample.count
    with pytest.raises(KeyboardInterrupt), counted(layer_cache.component, stop_at=second_sample.count + 3):
        measurer(layer_cache, samples).run()
    with counted(layer_cache.component) as rest:
        continued = measurer(layer_cache, samples).run()
    assert rest.count == all_of_it.count - second_sample.count
    assert errors_of(continued).equals(errors_of(whole))
    with counted(layer_cache.component) as nothing:
        measurer(layer_cache, samples).run()
    assert nothing.count == 0
    assert torch.equal(layer_cache.component(samples[0].inputs["x"])[0], samples[0].output[0])


@pytest.mark.usefixtures("own_cache")
def test_a_scheme_whose_error_was_not_wanted_before_is_measured_now():
    layer_cache, samples = prepared(Toy(Block()))
    costs_only = schemes(SensitivityConfig(bnb_4bit_use_double_quant=[False], bnb_4bit_quant_type=["nf4"]), "float16")
    everything = schemes(
        SensitivityConfig(bnb_4bit_use_double_quant=[False, True], bnb_4bit_quant_type=["nf4"]), "float16"
    )
    before = measurer(layer_cache, samples, specs=costs_only).run()
    after = measurer(layer_cache, samples, specs=everything).run()
    assert SCHEMES[2] in before.specs
    assert SCHEMES[2] not in before.measured_specs
    assert SCHEMES[2] in after.measured_specs


@pytest.mark.usefixtures("own_cache")
def test_a_layer_that_overflows_on_one_sample_alone_has_an_infinite_error():
    layer_cache, samples = prepared(Toy(Block()), samples=2)

    def overflow(module, args, kwargs, output):
        alone = is_quantized(module.leave) and kwargs["x"] is samples[1].inputs["x"]
        return (output[0] * math.nan,) if alone else output

    layer_cache.component.register_forward_hook(overflow, with_kwargs=True)
    sensitivities = measurer(layer_cache, samples).run()
    errors = sensitivities.errors(Int8Spec(6.0))
    assert errors[-1] == math.inf
    assert np.isfinite(errors[:-1]).all()


def test_schemes_that_are_asked_for_twice_are_measured_once():
    whole, rest = schemes(
        SensitivityConfig(llm_int8_threshold=[6, 6.0, 0], bnb_4bit_quant_type=["nf4", "nf4"]), "bfloat16"
    )
    assert whole == (Int8Spec(6.0), Int8Spec(0.0), Int4Spec(compute_dtype="bfloat16"))
    assert rest == (Int4Spec(double_quant=True, compute_dtype="bfloat16"),)


def test_no_scheme_at_all_and_unknown_types_are_errors():
    with pytest.raises(
        ConfigError, match=r"sensitivity\.llm_int8_threshold and sensitivity\.bnb_4bit_quant_type are empty"
    ):
        schemes(SensitivityConfig(llm_int8_threshold=[], bnb_4bit_quant_type=[]), "float16")
    with pytest.raises(ConfigError, match=r"'nf5'.*nf4"):
        schemes(SensitivityConfig(bnb_4bit_quant_type=["nf5"]), "float16")


@pytest.mark.parametrize("count", [0, -1])
def test_no_sample_at_all_is_an_error(lab, count):
    with pytest.raises(ConfigError, match=rf"sensitivity\.samples={count} must be at least 1"):
        measure_sensitivities(lab, "transformer", SensitivityConfig(samples=count), {})


def test_the_first_samples_are_taken_as_far_as_there_are():
    samples = [SimpleNamespace(component=name, step=step) for step in range(3) for name in ("unet", "other")]
    own = tuple(sample for sample in samples if sample.component == "unet")
    assert chosen_samples(samples, "unet", None) == chosen_samples(samples, "unet", 4) == own
    assert chosen_samples(samples, "unet", 2) == own[:2]


@pytest.mark.parametrize("budget_bytes", [0, math.inf])
def test_a_streamed_component_that_fits_has_the_sensitivities_of_a_resident_one(own_cache, budget_bytes):
    resident, samples = prepared(Toy(Block(), Block()), samples=2)
    elsewhere = torch.device("cpu", 0)  # equals the device of no tensor, so that every weight is streamed to it
    streamed = LayerCache(prepared(Toy(Block(), Block()))[0].component, elsewhere, budget_bytes)
    one = measurer(resident, samples, name="resident").run().table
    other = measurer(streamed, samples, name=f"streamed {budget_bytes}").run().table
    assert streamed.cached_bytes > 0
    timed = [name for name in one.columns if "latency" in name]
    assert one.drop(columns=timed).equals(other.drop(columns=timed))
