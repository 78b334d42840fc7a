"""Tests of the block elimination and its drivers."""
