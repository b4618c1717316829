"""Tables of the service: texts answered by the predictor, requests by a server, and its behaviour under bad company."""

from __future__ import annotations

from results_tables.values import ratio, rows, table

STUDY, RUNTIMES = "serving", ("openvino", "onnx-int8")


def predictor() -> str:
    """Texts a second of a file, of each way to answer it, and how many times as fast as a pipeline of transformers."""
    lines = []
    for row in rows(STUDY, "predict"):
        rate = 1000 * row["case"]["texts"] / row["times"]["median_ms"]
        lines.append([row["variant"], f"{rate:,.0f}", "" if row["baseline"] is None else ratio(row["times"])])
    return table(["answered by", "texts a second", "over the pipeline: median (quartiles)"], lines)


def batches() -> str:
    """Requests a second and percentiles of each load and engine, with dynamic batches and one at a time."""
    header = ["runtime", "model", "load", "server", "requests a second", "over one at a time", "p50 / p99, ms"]
    lines = []
    for runtime in RUNTIMES:
        found = rows(STUDY, f"serve-{runtime}")
        alone = {(row["model"], row["load"]): row for row in found if row["server"] == "one at a time"}
        for row in found:
            gain = row["requests_per_s"] / alone[row["model"], row["load"]]["requests_per_s"]
            cells = [runtime, row["model"].rpartition("/")[2], row["load"], row["server"]]
            shares = f"{row['p50_ms']:.1f} / {row['p99_ms']:.1f}"
            lines.append([*cells, f"{row['requests_per_s']:,.0f}", f"{gain:.2f}", shares])
    return table(header, lines)


def endurance() -> str:
    """What a server answered in each minute, and its resident memory."""
    statuses = {"status_200": "200", "status_400": "400", "status_413": "413", "status_422": "422", "status_503": "503"}
    header = ["minute", *statuses.values(), "other", "left by the client", "wrong", "p50 / p99, ms", "resident, MB"]
    lines = []
    for row in rows(STUDY, "load"):
        counts = [f"{row[name]:,}" for name in (*statuses, "other", "aborted", "wrong")]
        shares = f"{row['p50_ms']:.1f} / {row['p99_ms']:.1f}"
        lines.append([str(row["minute"]), *counts, shares, f"{row['resident_mb']:.1f}"])
    return table(header, lines)
