"""From raw to observation: conversion, calibration, uncertainty, quality. Arithmetic on NumPy arrays and nothing else.

`pipeline.observe` is the one way from a raw reading to an observation; ingest, recompute and `fleet verify` all take it.
Formulas that stand alone lie in `derived`.
"""
