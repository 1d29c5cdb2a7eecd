"""Measurements: each command prints tables and writes JSON with settings, machine and commit."""
