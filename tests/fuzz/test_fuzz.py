"""A few fixed seeds of every target; `python -m tests.fuzz` runs as many as wanted."""

import pytest

from tests.fuzz.targets import TARGETS, attack

# How many take about eight seconds on two cores that have nothing else to do.
COUNTS = {
  'configurations': 16,
  'pictures': 200,
  'command_lines': 25,
  'models': 12,
  'stored_configurations': 150,
  'checkpoints': 6,
  'reports': 12,
  'arrays': 150,
}


@pytest.mark.parametrize('name', TARGETS)
def test_random_input_is_understood_or_refused_in_one_line(name, tmp_path):
  outcomes = {attack(name, seed, tmp_path) for seed in range(COUNTS[name])}
  assert len(outcomes) > 1  # refusing all input, or none, would pass otherwise
