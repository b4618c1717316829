"""Pruning after training: whole units removed once, by what calibration examples say."""
