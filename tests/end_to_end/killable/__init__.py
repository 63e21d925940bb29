"""Launchers of real processes that are killed at named points; see fault_points.py."""
