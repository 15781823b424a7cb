"""The executors that exist keep the contract."""

import pytest
from executors import process_executor

from quantlab.executors import local

pytest.register_assert_rewrite("executors.contract")

from executors.contract import *  # noqa: E402, F403 the tests themselves


@pytest.fixture(scope="module", params=[local, process_executor], ids=["local", "process"])
def opener(request):
    return request.param.open_executor
