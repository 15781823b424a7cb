"""The only code that runs a model: references, samples, layer caches, replay, placement."""

from quantlab.lab.deployer import Deployer
from quantlab.lab.lab import Lab
from quantlab.lab.noise_floor import measure_noise_floor
from quantlab.lab.sensitivities import measure_sensitivities
from quantlab.lab.verification import verify

__all__ = ["Deployer", "Lab", "measure_noise_floor", "measure_sensitivities", "verify"]
