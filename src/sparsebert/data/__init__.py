"""Tasks: which data, which labels, which metrics. This package file imports nothing, so the task table stays cheap."""
