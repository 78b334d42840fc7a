"""Tests of what users read off a fit."""
