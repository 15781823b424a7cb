"""Fixtures that several tests share: labs on the embedded pipelines, and a small pipeline with random weights."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from shared import made_once
from small import SMALL_STUDY
from typed import Answer, Quantlab
from wheels import installed

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.pop("COLUMNS", None)  # pytest's parallel workers set it, and tables would follow it
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two OpenMP programs on one core each otherwise spin against each other

settings.register_profile("quantlab", deadline=None)  # how long an example takes says nothing on a shared machine
settings.register_profile("fast", deadline=None, max_examples=15)  # of `make check`; `make test` tries more
settings.load_profile("quantlab")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("QUANTLAB_CACHE")
    os.environ["QUANTLAB_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["QUANTLAB_CACHE"]
    else:
        os.environ["QUANTLAB_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def no_turns() -> Iterator[None]:
    """On a CPU, nothing is timed in turns with the reference: most tests look at no latency."""
    from quantlab.metrics import latency

    before, latency.MOST_ROUNDS = latency.MOST_ROUNDS, 0
    yield
    latency.MOST_ROUNDS = before


@pytest.fixture(scope="session")
def lab():
    """A lab on tiny_sd3: 2 prompts x 2 timesteps, on the CPU."""
    from quantlab import Lab

    with Lab.open("tiny_sd3", "evaluation=quick", device="cpu") as lab:
        yield lab


@pytest.fixture(scope="session")
def outliers_lab():
    """The same on tiny_sd3_outliers."""
    from quantlab import Lab

    with Lab.open("tiny_sd3_outliers", "evaluation=quick", device="cpu") as lab:
        yield lab


@pytest.fixture(scope="session")
def random_sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained Stable Diffusion 3 pipeline, with a VAE that can decode."""
    from training.tiny_sd3.architecture import save, untrained_pipeline

    folder = tmp_path_factory.mktemp("random_sd3")
    pipeline = untrained_pipeline(seed=1)
    pipeline.vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)
    save(pipeline, folder)
    return folder


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished study of a few settings: see `SMALL_STUDY`. Parallel workers share it."""
    from quantlab import session
    from quantlab.config.compose import compose

    def make(results: Path) -> None:
        session.run(compose("sweep", [f"results_dir={results}", *SMALL_STUDY]))

    return made_once(tmp_path_factory, "results", make) / "small"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel, which lies beside it. Parallel workers share it."""
    return made_once(tmp_path_factory, "wheel", installed) / "site"


@pytest.fixture
def quantlab(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Quantlab:
    """Types a command in an empty folder."""
    from quantlab import __main__ as entry

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def type_in(*arguments: str) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            entry.main(list(arguments))
        said = capsys.readouterr()
        code = ended.value.code
        return Answer(code if isinstance(code, int) else int(code is not None), said.out, said.err)

    return type_in
