"""Tests of finetti; `tests.oracles` is the slow truth that they compare with."""
