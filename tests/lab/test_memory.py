import pytest
import torch
from torch import nn

from quantlab import Int4Spec, Int8Spec
from quantlab.bnb import layers as bnb_layers
from quantlab.bnb.storage import bits
from quantlab.lab.memory import peak_above_start
from quantlab.lab.provenance import threads_set
from quantlab.metrics.memory import bits_per_weight, weight_bytes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def large_layer():
    torch.manual_seed(0)
    return nn.Linear(4096, 4096, bias=False, dtype=torch.float16).requires_grad_(False)


def one_layer(spec, layer):
    return nn.Sequential(bnb_layers.make(spec, layer, CPU))


@pytest.fixture(scope="module")
def nf4_bits(large_layer):
    return {d: bits_per_weight([one_layer(Int4Spec(double_quant=d), large_layer)]) for d in (False, True)}


def test_nf4_holds_4_500_bits_per_weight(nf4_bits):
    assert f"{nf4_bits[False]:.3f}" == "4.500"


def test_nf4_with_double_quant_holds_4_127_bits_per_weight(nf4_bits):
    assert f"{nf4_bits[True]:.3f}" == "4.127"


def test_double_quant_saves_0_373_bits_per_weight(nf4_bits):
    assert f"{nf4_bits[False] - nf4_bits[True]:.3f}" == "0.373"


@pytest.mark.parametrize("double_quant", [False, True])
def test_bits_are_told_from_the_scheme_alone(nf4_bits, double_quant):
    assert bits(Int4Spec(double_quant=double_quant)) == pytest.approx(nf4_bits[double_quant], abs=1e-3)


def test_fp4_holds_as_many_bits_as_nf4():
    layer = nn.Linear(1024, 1024, bias=False, dtype=torch.float16)
    assert weight_bytes([one_layer(Int4Spec("fp4"), layer)]) == weight_bytes([one_layer(Int4Spec("nf4"), layer)])


@pytest.mark.parametrize("threshold", [0, 6])
@pytest.mark.parametrize(("rows", "columns"), [(1024, 1024), (96, 160)])
def test_int8_holds_8_bits_per_weight_and_one_float32_scale_per_row(rows, columns, threshold):
    layer = nn.Linear(columns, rows, bias=False, dtype=torch.float16)
    assert weight_bytes([one_layer(Int8Spec(threshold), layer)]) == rows * columns + 4 * rows


def test_int8_still_holds_no_more_after_a_forward():
    layer = nn.Linear(256, 128, bias=False, dtype=torch.float16)
    component = one_layer(Int8Spec(6), layer)
    before = weight_bytes([component])
    with torch.no_grad():
        component(torch.randn(4, 256).half())
    assert weight_bytes([component]) == before


def test_int8_with_16_bit_weights_holds_at_least_16_bits_per_weight():
    layer = nn.Linear(256, 128, bias=False, dtype=torch.float16)
    assert weight_bytes([one_layer(Int8Spec(6, has_fp16_weight=True), layer)]) >= 2 * 256 * 128


def test_bits_per_weight_leaves_the_bias_out_and_weight_bytes_counts_it():
    layer = nn.Linear(128, 64, bias=True, dtype=torch.float16)
    bare = nn.Linear(128, 64, bias=False, dtype=torch.float16)
    bare.weight = layer.weight
    component, without = one_layer(Int8Spec(), layer), one_layer(Int8Spec(), bare)
    assert bits_per_weight([component]) == bits_per_weight([without])
    assert weight_bytes([component]) == weight_bytes([without]) + 2 * 64


def test_a_storage_that_modules_share_is_held_once():
    one, two = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
    assert weight_bytes([nn.Sequential(one, two)]) == 2 * 4 * 64 * 64
    two.weight = nn.Parameter(one.weight.data)
    assert weight_bytes([nn.Sequential(one, two)]) == 4 * 64 * 64


def test_a_view_is_held_as_the_storage_that_it_keeps_alive():
    module = nn.Module()
    module.register_buffer("view", torch.zeros(1000)[:10])
    assert weight_bytes([module]) == 4000


def test_buffers_are_held():
    assert weight_bytes([nn.BatchNorm1d(10)]) == 4 * 4 * 10 + 8


def test_a_forward_peaks_at_its_output_at_least():
    layer = nn.Linear(256, 512)
    inputs = torch.randn(64, 256)
    with torch.no_grad():
        peak, source = peak_above_start(lambda: layer(inputs), CPU)
    assert peak >= 4 * 64 * 512
    assert source == "CPU allocator events"


def test_the_peak_counts_what_is_alive_at_once_and_not_all_that_was_ever_allocated():
    def one_after_another():
        for _ in range(10):
            torch.zeros(1 << 20, dtype=torch.uint8)

    def all_at_once():
        return [torch.zeros(1 << 20, dtype=torch.uint8) for _ in range(10)]

    assert peak_above_start(one_after_another, CPU)[0] < 3 << 20
    assert peak_above_start(all_at_once, CPU)[0] >= 10 << 20


def test_a_row_s_peak_is_above_what_it_holds(lab):
    row = lab.measure(Int4Spec())
    output = lab.sample_set.samples[0].output[0]
    assert row.peak_memory_bytes >= row.memory_bytes + output.numel() * output.element_size()


def test_the_layer_cache_makes_settings_no_heavier(lab):
    before = lab.measure(Int4Spec()).memory_bytes
    lab.measure(Int8Spec())
    assert lab.measure(Int4Spec()).memory_bytes == before


def test_threads_are_as_many_as_before_afterwards(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr("os.cpu_count", lambda: before + 1)
    with threads_set(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
