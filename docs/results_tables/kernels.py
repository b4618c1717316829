"""Tables of the studies on layers and encoders of random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from results_tables.values import Row, factor, ms, ratio, rows, table, times, us

MATRICES = ((768, 3072), (3072, 768), (768, 768))
IN_FP32 = {
    "32 x 32 blocks, over dense fp32": ("32x32 blocks", "dense fp32"),
    "single values, over dense fp32": ("single values", "dense fp32"),
}
IN_BF16 = {
    "32 x 32 blocks in bf16, over dense bf16": ("32x32 blocks bf16", "dense bf16 packed"),
    "single values in bf16, over dense bf16": ("single values bf16", "dense bf16 packed"),
}


def linear_xeon() -> str:
    """90 % zeros in fp32 against the dense product in fp32."""
    found, lines = rows("linear", "xeon"), []
    for case in _cases(found, 0.9):
        dense = times(found, "dense fp32", None, **case)
        blocks, small, single = (
            times(found, name, "dense fp32", **case) for name in ("32x32 blocks", "16x32 blocks", "single values")
        )
        rate = _rate(found, "32x32 blocks", "dense fp32", case)
        fast = f"{us(blocks)}, {rate:.0f} GFLOP/s"
        lines.append([*_named(case), us(dense), fast, ratio(blocks), factor(small), factor(single)])
    over = ["32 x 32 blocks", "over dense (quartiles)", "16 x 32 blocks, over dense", "single values, over dense"]
    return table(["matrix", "tokens", "dense fp32", *over], lines)


def linear_levels(name: str, columns: Mapping[str, tuple[str, str]]) -> str:
    """The range over the three matrices, at 128 and 1,024 tokens, at each part of zeros.

    `columns`: what is said of them, and the variant and its baseline.
    """
    found, lines = rows("linear", name), []
    for sparsity in (0.8, 0.9, 0.95):
        cases = [case for case in _cases(found, sparsity) if case["tokens"] > 1]
        cells = []
        for variant, baseline in columns.values():
            speeds = [times(found, variant, baseline, **case)["speedup"] for case in cases]
            cells.append(f"{min(speeds):.1f}–{max(speeds):.1f}")
        lines.append([f"{100 * sparsity:.0f} %", *cells])
    return table(["zeros", *columns], lines)


def linear_epyc() -> str:
    """90 % zeros in bf16 and fp32, against dense products in both."""
    found, lines = rows("linear", "epyc"), []
    for case in (one for one in _cases(found, 0.9) if one["tokens"] > 1):
        half = times(found, "32x32 blocks bf16", "dense fp32", **case)
        packed = times(found, "32x32 blocks bf16", "dense bf16 packed", **case)
        full = times(found, "32x32 blocks", "dense bf16 packed", **case)
        single, over_half, in_half = (
            times(found, name, base, **case)
            for name, base in (
                ("single values", "dense fp32"),
                ("single values", "dense bf16 packed"),
                ("single values bf16", "dense bf16 packed"),
            )
        )
        rate = _rate(found, "32x32 blocks bf16", "dense fp32", case)
        blocks = [f"{us(half)}, {rate:.0f} GFLOP/s", factor(half), ratio(packed), factor(full)]
        lines.append([*_named(case), *blocks, factor(single), factor(over_half), factor(in_half)])
    header = [
        "32 x 32 blocks in bf16",
        "over dense fp32",
        "over dense bf16, packed",
        "blocks in fp32, over dense bf16",
        "single values in fp32, over dense fp32",
        "over dense bf16",
        "single values in bf16, over dense bf16",
    ]
    return table(["matrix", "tokens", *header], lines)


def _cases(found: Sequence[Row], sparsity: float) -> list[dict[str, float]]:
    tokens = sorted({row["case"]["tokens"] for row in found})
    return [
        {"inputs": inputs, "outputs": outputs, "tokens": count, "sparsity": sparsity}
        for inputs, outputs in MATRICES
        for count in tokens
    ]


def _named(case: dict[str, float]) -> list[str]:
    return [f"{case['inputs']} → {case['outputs']}", f"{case['tokens']:,}"]


def _rate(found: Sequence[Row], variant: str, baseline: str, case: dict[str, float]) -> float:
    (row,) = [row for row in found if (row["variant"], row["baseline"], row["case"]) == (variant, baseline, case)]
    return row["useful_gflop_per_s"]


def encoder(name: str) -> str:
    """Every engine against PyTorch in fp32 and against the fastest dense engine."""
    found = rows("encoder", name)
    (fastest,) = {row["baseline"] for row in found} - {"torch fp32"}
    lines = []
    for engine in dict.fromkeys(row["variant"] for row in found):
        plain, best = times(found, engine, "torch fp32"), times(found, engine, fastest)
        lines.append([_engine(engine), ms(plain), factor(plain), ratio(best)])
    return table(["engine", "ms", "over torch fp32", f"over {fastest} (quartiles)"], lines)


def _engine(name: str) -> str:
    """As it was called, with the precision said where it is fp32."""
    if name == "dense, own attention":
        return "torch fp32, native attention, dense"
    plain = name.replace("90%", "90 %")
    return plain if not plain.startswith("sparsebert") or plain.endswith("bf16") else f"{plain}, fp32"


def fff_xeon() -> str:
    """One tree against dense layers in fp32; one token from the file that has the newer call."""
    many, few = rows("fff-layer", "xeon"), rows("fff-layer", "xeon-few-tokens")
    lines = []
    for tokens, found in ((1, few), (128, many), (1024, many), (16384, many)):
        wide, usual = (times(found, "fff fp32", f"dense {width} fp32", tokens=tokens) for width in (4095, 3072))
        plain = times(found, "fff in plain torch", "dense 3072 fp32", tokens=tokens)
        lines.append([f"{tokens:,}", us(wide), ratio(wide), ratio(usual), factor(plain)])
    over = ["over dense fp32, 4,095 wide", "over dense fp32, 3,072 wide", "the same in plain PyTorch, over dense 3,072"]
    return table(["tokens a call", "fp32 kernel", *over], lines)


def fff_sorting() -> str:
    """What sorting tokens by the node that they reach gains, by the level of the node."""
    found = rows("fff-layer", "xeon-few-tokens")
    counts = [row["case"]["tokens"] for row in found if row["variant"] == "sorted at level 6"]
    levels = (4, 6, 8)
    lines = []
    for tokens in counts:
        gains = [times(found, f"sorted at level {level}", "not sorted", tokens=tokens) for level in levels]
        lines.append([f"{tokens:,}", *map(ratio, gains)])
    return table(["tokens a call", *(f"sorted at level {level}, over not sorted" for level in levels)], lines)


def fff_epyc() -> str:
    """The same tree on a processor with bf16 units, also with an allocator that keeps memory."""
    usual, keeping = rows("fff-layer", "epyc"), rows("fff-layer", "epyc-jemalloc")
    lines = []
    for tokens, found, name in (
        (1, usual, "1"),
        (128, usual, "128"),
        (1024, usual, "1,024"),
        (16384, usual, "16,384"),
        (16384, keeping, "16,384, jemalloc"),
    ):
        in_fp32 = times(found, "fff fp32", "dense 4095 fp32", tokens=tokens)
        in_bf16 = times(found, "fff bf16 weights", "dense 4095 fp32", tokens=tokens)
        others = [
            times(found, "fff fp32", base, tokens=tokens) for base in ("dense 3072 fp32", "dense 4095 bf16 packed")
        ]
        lines.append([name, us(in_fp32), ratio(in_fp32), ratio(in_bf16), *map(ratio, others)])
    header = [
        "fp32 kernel",
        "over dense fp32, 4,095 wide",
        "the same with bf16 weights",
        "over dense fp32, 3,072 wide",
        "over dense bf16 packed, 4,095 wide",
    ]
    return table(["tokens a call", *header], lines)


def fff_primitive(kind: str) -> str:
    """Tree and dense layers computed by the same primitive, and the tree over the best dense layer of that type.

    `kind`: fp32 or fp64.
    """
    found = [row for row in rows("fff-primitive", "xeon-amx") if row["case"]["type"] == kind]
    lines = []
    for primitive in dict.fromkeys(row["case"]["primitive"] for row in found):
        own = [row for row in found if row["case"]["primitive"] == primitive]
        dense = [times(own, f"dense {width}", None) for width in (4095, 3072)]
        tree = {row["baseline"]: row["times"] for row in own if row["variant"].startswith("tree")}
        over = [f"{start}dense {width}" for width in (4095, 3072) for start in ("", "best ")]
        own_ms = next(map(ms, tree.values()), "")
        lines.append([primitive, *map(ms, dense), own_ms, *(ratio(tree[one]) if one in tree else "" for one in over)])
    header = ["computed by", "dense 4,095, ms", "dense 3,072, ms", "tree, ms"]
    header += [f"tree over {name}" for name in ("dense 4,095", "the best 4,095", "dense 3,072", "the best 3,072")]
    return table(header, lines)
