import numpy as np
import optuna
import pytest
from fakes import made_up_profile

from quantlab.config import BudgetConfig, SpaceConfig
from quantlab.profile.auto import AutoSkip
from quantlab.profile.predict import Predictor
from quantlab.search.sensitivity import SensitivitySampler, _gains
from quantlab.search.space import Space
