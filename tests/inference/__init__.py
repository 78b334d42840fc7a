"""Tests of the inner and the outer step."""
