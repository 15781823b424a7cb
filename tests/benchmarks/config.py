"""The options of a benchmark: those of a sweep, with the package's groups, and a few more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from quantlab.config import SweepConfig
from quantlab.config.paths import conf_dir

CONF = Path(__file__).parent / "conf"
"""What benchmarks add to the package's configuration groups."""


@dataclass
class BenchmarkConfig(SweepConfig):
    """What a benchmark runs on; results go to ``results_dir/study``.

    Attributes:
        generations: prompts that `naive` also generates in full for each setting, 0 leaves that out; and the images of
            each setting that `ranking` compares SNR with.
        peers_python: a Python with optimum-benchmark; null makes an environment for it in the cache folder.
        compared_with: file of an earlier result of `latency`, of another process or card.
    """

    generations: int = 8
    peers_python: str | None = None
    compared_with: str | None = None


def compose(overrides: Sequence[str] = (), defaults: Sequence[str] = ()) -> BenchmarkConfig:
    """The configuration under overrides, and under those of the defaults that no override speaks of.

    Raises:
        HydraException, OmegaConfBaseException: for a group, option or value that is not known.
    """
    ConfigStore.instance().store(group="schema", name="benchmark", node=BenchmarkConfig, package="_global_")
    GlobalHydra.instance().clear()
    given = {override.partition("=")[0] for override in overrides}
    wanted = [*(line for line in defaults if line.partition("=")[0] not in given), *overrides]
    place = f"hydra.searchpath=[file://{conf_dir()}]"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_object(hydra_compose("benchmark", overrides=[place, *wanted]))
    assert isinstance(config, BenchmarkConfig)
    return config
