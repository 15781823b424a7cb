import errno
import json
import os

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from quantlab.errors import ConfigError
from quantlab.pipelines import tensors

CPU = torch.device("cpu")
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool]


def same(left, right):
    """Whether two values are equal in structure, type, and every bit of their tensors."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return (
            left.dtype == right.dtype
            and left.shape == right.shape
            and tensors.digest([left]) == tensors.digest([right])
        )
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def stored(path):
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


NESTED = {
    "hidden": torch.arange(6.0).reshape(2, 3),
    "list": [torch.tensor(1.5), [torch.tensor([True, False]), None], {}],
    "plain": {"text": "ä b", "whole": 3, "part": 0.1, "yes": True, "none": None, "far": float("inf")},
    "empty": torch.zeros(0, 4, dtype=torch.bfloat16),
}
VALUES = [NESTED, [], {}, None, 3, 0.1, "text", torch.tensor(float("nan")), [torch.ones(2), "x"]]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_was_saved_is_loaded(tmp_path, value):
    tensors.save(value, tmp_path / "a.safetensors")
    assert same(tensors.load(tmp_path / "a.safetensors", CPU), value)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_loaded_bit_for_bit(tmp_path, dtype):
    value = [torch.randint(0, 2, (3, 5), generator=torch.Generator().manual_seed(0)).to(dtype)]
    tensors.save(value, tmp_path / "a.safetensors")
    assert same(tensors.load(tmp_path / "a.safetensors", CPU), value)


@pytest.mark.parametrize("value", [(torch.ones(2), (1, 2)), [()], {"a": ([torch.ones(1), (None,)],)}], ids=str)
def test_tuples_come_back_as_tuples_and_lists_as_lists(tmp_path, value):
    """Kind: a component that asks which of the two it is given."""
    tensors.save(value, tmp_path / "a.safetensors")
    assert same(tensors.load(tmp_path / "a.safetensors", CPU), value)


def test_a_tuple_and_a_list_of_the_same_differ_in_their_fingerprint():
    assert tensors.fingerprint((torch.ones(2), 1)) != tensors.fingerprint([torch.ones(2), 1])


def test_tensors_that_are_equal_are_written_once(tmp_path):
    one = torch.arange(1000.0)
    value = {"a": one, "b": [one.clone(), one + 1], "c": one.reshape(10, 100), "d": one.int()}
    tensors.save(value, tmp_path / "a.safetensors")
    assert stored(tmp_path / "a.safetensors") == [".a", ".b.1", ".c", ".d"]
    assert same(tensors.load(tmp_path / "a.safetensors", CPU), value)


def test_zeros_of_either_sign_are_not_the_same_tensor(tmp_path):
    value = [torch.zeros(3), -torch.zeros(3)]
    tensors.save(value, tmp_path / "a.safetensors")
    assert torch.signbit(tensors.load(tmp_path / "a.safetensors", CPU)[1]).all()


VIEWS = {
    "part and whole": lambda base: [base, base[:1]],
    "first token of a batch of one": lambda base: [base[None], base[None][:, 0]],
    "halves": lambda base: list(base.chunk(2)),
    "transposed": lambda base: [base, base.T],
    "expanded": lambda base: [base[0].expand(3, 3)],
}


@pytest.mark.parametrize("views", VIEWS.values(), ids=VIEWS)
def test_views_of_one_storage_are_loaded_as_what_they_show(tmp_path, views):
    value = views(torch.arange(12.0).reshape(4, 3))
    tensors.save(value, tmp_path / "a.safetensors")
    assert same(tensors.load(tmp_path / "a.safetensors", CPU), value)


def test_what_needs_gradients_is_saved_without_them(tmp_path):
    tensors.save([torch.ones(2, requires_grad=True)], tmp_path / "a.safetensors")
    assert not tensors.load(tmp_path / "a.safetensors", CPU)[0].requires_grad


@pytest.mark.parametrize(
    ("value", "name"), [({"a": {"b": [1, object()]}}, "a.b.1"), ({"image": {1, 2}}, "image"), ([b"x"], "0")]
)
def test_what_cannot_be_recorded_is_an_error_that_names_its_place(tmp_path, value, name):
    with pytest.raises(ConfigError, match=rf"argument {name} is a \w+, which cannot be recorded"):
        tensors.save(value, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_refused(tmp_path, share):
    file = tmp_path / "a.safetensors"
    tensors.save(NESTED, file)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises((ValueError, SafetensorError)):
        tensors.load(file, CPU)


def test_a_single_changed_bit_is_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    tensors.save([torch.zeros(8)], file)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="does not hold what was written"):
        tensors.load(file, CPU)


def test_a_changed_plain_part_is_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    tensors.save({"step": 7, "a": torch.zeros(1)}, file)
    data = file.read_bytes()
    old = json.dumps(json.dumps({"step": 7}))[1:-2].encode()
    assert data.count(old) == 1
    file.write_bytes(data.replace(old, old.replace(b"7", b"8")))
    with pytest.raises(ValueError, match="does not hold what was written"):
        tensors.load(file, CPU)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_safetensors_of_another_program_are_refused(tmp_path, metadata):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match="was not written by quantlab"):
        tensors.load(tmp_path / "a.safetensors", CPU)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_text("these are no tensors at all")
    with pytest.raises((ValueError, SafetensorError)):
        tensors.load(tmp_path / "a.safetensors", CPU)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def half(flat, path, metadata):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = tmp_path / "a.safetensors"
    tensors.save(NESTED, file)
    monkeypatch.setattr(tensors, "save_file", half)
    with pytest.raises(OSError, match=r"No space left on device: .*a\.safetensors"):
        tensors.save([1], file)
    assert list(tmp_path.iterdir()) == [file]
    assert same(tensors.load(file, CPU), NESTED)


def test_a_write_replaces_the_file_that_was_there(tmp_path):
    file = tmp_path / "a.safetensors"
    for value in ([1, torch.ones(2)], NESTED):
        tensors.save(value, file)
        assert same(tensors.load(file, CPU), value)
    assert list(tmp_path.iterdir()) == [file]


BASE = {"a": torch.ones(4), "b": [torch.zeros(2, 3), 1]}
OTHERS = {
    "lowest bit": {**BASE, "a": torch.tensor([1, 1, 1, 1 + torch.finfo(torch.float32).eps])},
    "sign of a zero": {**BASE, "b": [-torch.zeros(2, 3), 1]},
    "dtype with the same bits": {**BASE, "a": torch.ones(4).view(torch.int32)},
    "shape": {**BASE, "a": torch.ones(2, 2)},
    "name": {"c": BASE["a"], "b": BASE["b"]},
    "tensors exchanged": {"a": torch.zeros(2, 3), "b": [torch.ones(4), 1]},
    "plain part": {**BASE, "b": [torch.zeros(2, 3), 2]},
    "a part more": {**BASE, "c": None},
    "a tensor more": {**BASE, "c": torch.ones(4)},
    "type of a number": {**BASE, "b": [torch.zeros(2, 3), True]},
}


def test_the_fingerprint_is_the_same_for_what_is_equal():
    again = {"b": [torch.zeros(2, 3), 1], "a": torch.ones(8)[::2]}
    assert tensors.fingerprint(again) == tensors.fingerprint(BASE)


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_the_fingerprint_tells_values_apart_that_differ_in(other):
    assert tensors.fingerprint(other) != tensors.fingerprint(BASE)


def test_the_fingerprints_of_all_these_differ_from_each_other():
    assert len({tensors.fingerprint(value) for value in OTHERS.values()}) == len(OTHERS)


def test_a_digest_depends_on_the_order_of_tensors_and_on_where_one_ends():
    one, two = torch.ones(2), torch.zeros(2)
    digests = {tensors.digest(v) for v in ([one, two], [two, one], [torch.cat([one, two])], [one], [])}
    assert len(digests) == 5


@pytest.mark.parametrize("tensor", [torch.tensor(3.0).expand(1), torch.ones(2, 1).expand(2, 4)], ids=["one", "many"])
def test_an_expanded_tensor_is_what_its_values_are(tmp_path, tensor):
    plain = torch.tensor(tensor.tolist())
    assert tensors.digest([tensor]) == tensors.digest([plain])
    tensors.save([tensor], tmp_path / "a.safetensors")
    (loaded,) = tensors.load(tmp_path / "a.safetensors", CPU)
    assert torch.equal(loaded, plain)
    assert tensors.packed(tensor).stride() == plain.stride()
