import os

import pytest

from quantlab.errors import ModelError
from quantlab.files import cache_folder, writing, written


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_folder_is_made_inside_the_cache_folder_and_found_again(root):
    assert cache_folder("a", "b") == root / "a" / "b" == cache_folder("a", "b")
    assert (root / "a" / "b").is_dir()


def test_a_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QUANTLAB_CACHE", "~/kept")
    assert cache_folder("a") == tmp_path / "kept" / "a"


def test_without_the_variable_it_is_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("QUANTLAB_CACHE")
    assert cache_folder() == tmp_path / ".cache" / "quantlab"


def refused(root):
    with pytest.raises(ModelError) as error:
        cache_folder("samples")
    message = str(error.value)
    assert message.startswith(f"QUANTLAB_CACHE={str(root)!r} cannot be written (")
    assert message.endswith("); set it to a folder that can")
    assert "\n" not in message
    return message


def test_a_file_in_the_cache_folder_s_place_is_one_line(root):
    root.write_text("")
    assert "Not a directory" in refused(root)


def test_a_folder_without_write_permission_is_one_line(root, monkeypatch):
    (root / "samples").mkdir(parents=True)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))  # root may write
    assert "Permission denied" in refused(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_below_one_without_write_permission_is_one_line(root):
    root.mkdir(mode=0o500)
    assert "Permission denied" in refused(root)


def test_written_shows_the_file_when_it_is_whole_and_not_before(tmp_path):
    file = tmp_path / "a.json"
    with written(file) as scratch:
        assert scratch.parent == tmp_path
        assert scratch.suffix == ".json"
        scratch.write_text("whole")
        assert not file.exists()
    assert file.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, "old"])
def test_written_leaves_nothing_after_an_exception_but_what_was_there(tmp_path, error, before):
    file = tmp_path / "a.json"
    if before is not None:
        file.write_text(before)

    def fail():
        with written(file) as scratch:
            scratch.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == ({"a.json": before} if before else {})


def test_written_leaves_nothing_where_the_file_cannot_be_put_in_place(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(IsADirectoryError), written(tmp_path / "a.json") as scratch:
        scratch.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    file = tmp_path / "a.json"
    with written(file) as one, written(file) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert file.read_text() == "one"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })'),
        OSError(28, "No space left on device"),
    ],
)
def test_what_keeps_any_library_from_writing_names_the_file(tmp_path, error):
    """Kind: a full disk below a library in Rust or C++, whose errors are no OSError or name no file."""
    file = tmp_path / "a.json"
    with pytest.raises(OSError, match=r"No space left on device.*a\.json"), written(file):
        raise error
    with pytest.raises(OSError, match=r"No space left on device.*a\.json"), writing(file):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_has_to_do_with_no_file_stays_what_it_is(tmp_path):
    with pytest.raises(ValueError, match="a bug"), writing(tmp_path):
        raise ValueError("a bug")
