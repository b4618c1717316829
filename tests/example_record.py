"""Records as a run would write them, made in code: a MiniLM-sized family and its odd cases.

The numbers follow from the shapes (12 heads of 32, 1536 neurons, 384 wide, vocabulary 30522), so that tables and plots
look like real ones; they were not measured.
"""

from __future__ import annotations

from typing import Any

from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import parse_recipe
from sparsebert.recipe.schema import Target
from sparsebert.records import (
    Decisions,
    Environment,
    Flip,
    ModelResult,
    Record,
    Score,
    Shape,
    Size,
    Sparsity,
    SparsityAt,
    Timing,
    TrainingRun,
    TreeFit,
)

HEADS, NEURONS, LAYERS, WIDTH = 12, 1536, 6, 384
EMBEDDINGS = (30522 + 512 + 2) * WIDTH
DENSE_LINEAR = LAYERS * (4 * WIDTH * 32 * HEADS + 2 * WIDTH * NEURONS)
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "dense": ((12,) * 6, (1536,) * 6, ()),
    "2x": ((10, 8, 9, 6, 7, 5), (1104, 912, 768, 704, 528, 448), ()),
    "4x": ((7, 5, 6, 3, 0, 2), (512, 448, 384, 320, 192, 96), ()),
    "8x": ((4, 2, 3, 0, 1, 0), (224, 128, 160, 0, 64, 0), (3, 5)),
}
SPEEDUPS = {"dense": 1.0, "2x": 2.04, "4x": 3.92, "8x": 7.71}
ACCURACY = {"dense": 0.9128, "2x": 0.9094, "4x": 0.9060, "8x": 0.8727}
ONE_SHOT = {"2x": 0.8911, "4x": 0.7580, "8x": 0.5092}
MATRICES = (
    *(f"attention.self.{part}" for part in ("query", "key", "value")),
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
# The heads of each layer, the most important first.
ORDER = tuple(tuple((5 * place + 3 * layer + 1) % HEADS for place in range(HEADS)) for layer in range(LAYERS))
FLIPS = (
    Flip(text="a film that is not without charm", label="positive", dense="positive", own="negative"),
    Flip(text="it is never dull, only long", label="negative", dense="positive", own="negative"),
)
DENSE_MS = {(1, 128): 14.2, (1, 25): 4.61, (32, 128): 402.0, (32, 25): 83.5}


def example_record(seed: int = 0, criterion: str = "obs", accuracy_shift: float = 0.0, **recipe: Any) -> Record:
    """A finished run: dense, 2x, 4x and 8x, timed at two batches and two lengths."""
    targets = tuple(Target(kind="speedup", value=value) for value in (2, 4, 8))
    plain = parse_recipe({"task": "sst2", "criterion": criterion, "seed": seed, "targets": targets} | recipe)
    wobble = (0.0, 0.0023, -0.0034)[seed % 3]
    shifts = {name: (wobble + accuracy_shift) * (SPEEDUPS[name] - 1) / 3 for name in SHAPES}
    return _record(plain).model_copy(
        update={"models": tuple(_model(name, ACCURACY[name] + shifts[name], 1 + wobble) for name in SHAPES)}
    )


def full_record(seed: int = 0, **recipe: Any) -> Record:
    """The example with all that a run records today: intervals, baselines, decisions, and which heads stayed."""
    record = example_record(seed, **recipe)
    return record.model_copy(update={"models": tuple(map(_with_everything, record.models))})


def noisy_record() -> Record:
    """The full example, but the whole model of `4x` is somewhere between twice and four times as fast."""
    record = full_record()
    wide = {"speedup_low": 2.0, "speedup_high": 4.0}
    models = tuple(
        model.model_copy(update={"timings": tuple(one.model_copy(update=wide) for one in model.timings)})
        if model.name == "4x"
        else model
        for model in record.models
    )
    return record.model_copy(update={"models": models})


def _with_everything(model: ModelResult) -> ModelResult:
    dense, score = model.name == "dense", model.scores[0]
    change = {} if dense else {"change_low": score.value - ACCURACY["dense"] - 0.01, "change_high": 0.004}
    interval = {"low": score.value - 0.02, "high": score.value + 0.018, "baseline": 0.5092}
    timings = tuple(
        one.model_copy(update={"speedup_low": 0.98 * one.speedup, "speedup_high": 1.02 * one.speedup})
        for one in model.timings
        if one.speedup
    )
    wrong = round(428 * (1 - score.value))
    decisions = Decisions(
        classes=("negative", "positive"),
        confusion=((428 - wrong, wrong), (wrong + 3, 441 - wrong)),
        agreement=None if dense else 0.99 - 0.01 * SPEEDUPS[model.name],
        flips=() if dense else FLIPS,
    )
    kept = {
        "kept_heads": tuple(tuple(sorted(ORDER[layer][:count])) for layer, count in enumerate(model.shape.heads)),
        "head_importance": () if dense else tuple(map(_importance, ORDER)),
    }
    own = {"scores": (score.model_copy(update=interval | change),), "timings": timings, "decisions": decisions}
    return model.model_copy(update=own | {"shape": model.shape.model_copy(update=kept)})


def _importance(order: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(0.8 ** order.index(head) for head in range(HEADS))


def failed_record(message: str = "The training loss became nan at step 120.") -> Record:
    """A run that diverged: no scores, no models."""
    plain = parse_recipe({"task": "sst2", "criterion": "magnitude", "seed": 7})
    return _record(plain).model_copy(update={"status": "failed", "message": message, "failed_step": 120})


def sparse_record() -> Record:
    """A finished run of which much is missing: no scores, no FLOPs, no encoder times for the small model, no commit."""
    full = example_record()
    dense, small = full.models[0], full.models[2]
    bare = {"scores": (), "one_shot_scores": (), "training": None, "output_difference": None}
    models = tuple(
        model.model_copy(update=bare | {"size": model.size.model_copy(update={"flops": None}), "timings": timings})
        for model, timings in ((dense, dense.timings), (small, ()))
    )
    where = full.environment.model_copy(update={"commit": None, "dirty": None, "cpu_flags": ()})
    return full.model_copy(update={"models": models, "main_metric": None, "environment": where})


def plain_record() -> Record:
    """Two models timed against each other, without scores; the quickest to draw."""
    full = example_record()
    bare = {"scores": (), "one_shot_scores": (), "training": None}
    models = tuple(model.model_copy(update=bare) for model in full.models[:2])
    return full.model_copy(update={"models": models, "main_metric": None})


def train_record(seed: int = 0, sparsity: float = 0.8, **recipe: Any) -> Record:
    """A sparse training without a dense model: 600 steps of fine-tuning, then 450 with rules and a teacher."""
    phases = [{"name": "warm"}, {"name": "prune", "teacher": "some/teacher", "rules": [{}]}]
    values = {"task": "sst2", "seed": seed, "sparsity": sparsity, "phases": phases} | recipe
    dense = _model("dense", 0.9 - 0.1 * sparsity + 0.001 * seed, 1.0)
    run = {"epochs": 1.0, "examples": 20000, "seconds": 900.0, "dtype": "float32"}
    removed = Sparsity(encoder_linear=sparsity, whole_model=sparsity / 2, bytes_on_disk=sparsity / 2 - 0.03)
    made = {
        "name": "sparse",
        "folder": "sparse",
        "model_type": "sparsebert-bert",
        "training": None,
        "sparsity": removed,
        "phases": {
            "warm": TrainingRun(steps=600, final_loss=0.31, teacher=False, **run),
            "prune": TrainingRun(steps=450, final_loss=0.42, teacher=True, **run),
        },
        "timeline": (
            *(SparsityAt(step=step, loss=0.7 - step / 1500, phase="warm") for step in (200, 400, 600)),
            *(
                SparsityAt(step=step, loss=0.5 - step / 5000, phase="prune", sparsity=sparsity * step / 450)
                for step in (200, 400)
            ),
        ),
        "sparsity_by_tensor": {
            f"bert.encoder.layer.{layer}.{part}.weight": sparsity - 0.02 * layer + 0.01 * place
            for layer in range(LAYERS)
            for place, part in enumerate(MATRICES)
        },
    }
    plain = _record(parse_recipe(values))
    return plain.model_copy(update={"kind": "train", "models": (dense.model_copy(update=made),)})


def tree_record() -> Record:
    """A dense model, one with trees in the place of the blocks of the last two layers, and a control."""
    plain = _record(parse_recipe({"task": "sst2", "trees": {"depth": 10}}))
    dense = _model("dense", 0.91, 1.0)
    shape = dense.shape.model_copy(update={"neurons": (NEURONS,) * (LAYERS - 2) + (0, 0)})
    trees = tuple(
        TreeFit(layer=layer, name="1x10", error=0.4, dead=0.1, entropy=(1.0, 0.9)) for layer in (LAYERS - 2, LAYERS - 1)
    )
    own = {"model_type": "sparsebert-bert", "shape": shape}
    converted = dense.model_copy(update=own | {"name": "fff-1x10", "folder": "fff-1x10", "trees": trees})
    control = dense.model_copy(update=own | {"name": "no-ffn", "folder": "no-ffn"})
    return plain.model_copy(update={"kind": "fff", "models": (dense, converted, control)})


def _record(recipe: Recipe) -> Record:
    return Record(
        kind="compress",
        status="finished",
        created="2026-11-20T14:05:00Z",
        seconds=1874.2,
        seed=recipe.seed,
        command=f"sparsebert compress --task {recipe.task} --speedup 2 --speedup 4 --speedup 8 --seed {recipe.seed}",
        recipe_hash=recipe.hash,
        recipe=recipe.plain(),
        environment=Environment(
            python="3.11.7",
            packages={"torch": "2.13.0+cpu", "transformers": "5.23.0", "sparsebert": "0.1.0"},
            commit="31e5f94",
            dirty=False,
            machine="Linux x86_64",
            cpu="Example CPU @ 2.60GHz",
            cpu_flags=("avx512f", "avx512_bf16", "amx_bf16"),
            cores=2,
            threads=2,
            memory_gb=23.4,
        ),
        task=recipe.task,
        main_metric="accuracy",
    )


def _model(name: str, accuracy: float, drift: float) -> ModelResult:
    heads, neurons, dropped = SHAPES[name]
    linear = sum(4 * WIDTH * 32 * h + 2 * WIDTH * n for h, n in zip(heads, neurons, strict=True))
    rest = EMBEDDINGS + WIDTH * WIDTH + 3 * WIDTH * 2 * (LAYERS - len(dropped))
    whole = 1 - (linear + rest) / (DENSE_LINEAR + EMBEDDINGS + WIDTH * WIDTH + 6 * WIDTH * LAYERS)
    small = name != "dense"
    return ModelResult(
        name=name,
        folder=name,
        model_type="sparsebert-bert" if small else "bert",
        target_kind="speedup" if small else None,
        target_value=float(name[:-1]) if small else None,
        shape=Shape(heads=heads, neurons=neurons, dropped_layers=dropped, full_heads=HEADS, full_neurons=NEURONS),
        scores=(Score(metric="accuracy", value=accuracy, split="validation", examples=872),),
        one_shot_scores=(Score(metric="accuracy", value=ONE_SHOT[name], split="validation", examples=872),)
        if small
        else (),
        sparsity=Sparsity(encoder_linear=1 - linear / DENSE_LINEAR, whole_model=whole, bytes_on_disk=whole),
        size=Size(
            parameters=linear + rest,
            encoder_linear_parameters=linear,
            embedding_parameters=EMBEDDINGS,
            weight_bytes=4 * (linear + rest),
            flops=2 * 128 * linear + 4 * 128 * 128 * 32 * sum(heads),
            flops_batch=1,
            flops_length=128,
        ),
        timings=tuple(_timing(name, scope, *key, drift) for scope in ("encoder", "model") for key in DENSE_MS),
        output_difference=2.4e-7 if small else None,
        training=TrainingRun(
            steps=4210, epochs=2.0, examples=67349, seconds=412.5, final_loss=0.1873, dtype="bfloat16", teacher=small
        ),
    )


def _timing(name: str, scope: str, batch: int, length: int, drift: float) -> Timing:
    fixed_ms = 0.0 if scope == "encoder" else 0.35 + 0.004 * batch * length / 8
    ratio = 1 + (SPEEDUPS[name] * drift - 1) * (1.0 if (batch, length) == (1, 128) else 0.9) if name != "dense" else 1
    ms = DENSE_MS[batch, length] / ratio + fixed_ms
    speedup = (DENSE_MS[batch, length] + fixed_ms) / ms
    return Timing(
        scope=scope,  # pyright: ignore[reportArgumentType]
        backend="eager",
        dtype="float32",
        attention="sdpa",
        batch=batch,
        length=length,
        threads=2,
        rounds=15,
        median_ms=ms,
        q25_ms=ms * 0.985,
        q75_ms=ms * 1.027,
        tokens_per_s=1000 * batch * length / ms,
        speedup=speedup,
        speedup_q25=speedup * 0.982,
        speedup_q75=speedup * 1.014,
    )
