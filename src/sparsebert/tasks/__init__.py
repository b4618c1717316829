"""Kinds of tasks, the table of tasks, and metrics."""
