"""The runners that these tests start."""

from tests.support.app_runner import runner_python, start, start_shared

__all__ = ["runner_python", "start", "start_shared"]
