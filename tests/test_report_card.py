import re

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from markdown_it import MarkdownIt

from example_record import example_record, full_record, sparse_record, train_record, tree_record
from sparsebert.errors import UserError
from sparsebert.records import Record
from sparsebert.reports import model_card
from sparsebert.reports.escape import in_html, in_markdown, plain


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def metadata(card: str) -> ModelCardData:
    """What the hub's own reader makes of a card; it refuses results that it cannot understand."""
    data = ModelCard(card, ignore_metadata_errors=False).data
    assert isinstance(data, ModelCardData)
    return data


def code(card: str) -> str:
    found = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert found
    return found[1]


def test_the_card_has_front_matter_of_the_hub():
    values = front_matter(model_card(example_record(), "4x"))
    assert values["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert values["library_name"] == "transformers"
    assert "sparsebert" in values["tags"]
    assert values["license"] == "other" and values["license_link"].endswith("/sentence-transformers/all-MiniLM-L6-v2")
    assert values["pipeline_tag"] == "text-classification"


@pytest.mark.parametrize("task", ["sst2", "a: b\n- c", "'\"|#"])
def test_the_hub_reads_the_results(task):
    record = full_record().model_copy(update={"task": task})
    [result] = metadata(model_card(record, "4x")).eval_results or [None]
    assert isinstance(result, EvalResult)
    assert (result.task_type, result.metric_type, result.metric_value) == ("text-classification", "accuracy", 0.906)
    assert (result.dataset_name, result.dataset_split) == (task, "validation")
    assert metadata(model_card(record, "4x")).model_name == "all-MiniLM-L6-v2-4x"


def test_a_model_without_scores_has_no_results():
    assert metadata(model_card(sparse_record(), "4x")).eval_results is None


def test_a_folder_that_looks_like_a_name_of_the_hub_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "dense").mkdir(parents=True)
    values = front_matter(model_card(example_record(model="out/dense"), "4x"))
    assert "base_model" not in values and values["license"] == "unknown"


def test_the_card_names_the_labels_and_shows_both_ways_to_load():
    card = model_card(full_record(), "4x")
    assert "| 0 | negative |\n| 1 | positive |" in card
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 3 and all(compile(block, "card", "exec") for block in blocks)
    assert 'pipeline("text-classification", model="path/to/this/folder")' in blocks[0]
    assert "trust_remote_code=True" in blocks[2] and "import sparsebert" not in blocks[2]
    assert "trust_remote_code" not in model_card(full_record(), "dense")


@pytest.mark.parametrize("model", ["/somewhere/my-model", "./my-model", "../a/b", "a: b\nlicense: mit"])
def test_a_local_model_is_no_base_model_of_the_hub(model):
    values = front_matter(model_card(example_record(model=model), "4x"))
    assert set(values) == {"library_name", "pipeline_tag", "license", "tags", "model-index"}
    assert values["license"] == "unknown"


def test_the_card_holds_the_numbers_of_the_record_and_how_they_came_about():
    card = model_card(example_record(), "4x")
    for words in (
        "# all-MiniLM-L6-v2 on sst2: 4x",
        "3.6× faster than dense on this machine, encoder 3.92×, 0.7 points of accuracy lost, 35% smaller file.",
        "75.2% of the encoder's linear weights, 35.2% of all parameters, 35.2% of the bytes on disk.",
        "| dense | 91.3% | – | 1.00× (0.98–1.01) | 1.00× (0.98–1.01) | 90.8 MB | 0.0% (0.0%) |",
        "| 4x (4× faster) | 90.6% | −0.7 | 3.62× (3.56–3.67) | 3.92× (3.85–3.97) | 58.8 MB (−35.2%) | 75.2% (35.2%) |",
        "- **Accuracy**: 872 examples of the validation split of sst2, seed 0.",
        "| 5 | 0 | 192 |",
        "sparsebert compress --task sst2 --speedup 2 --speedup 4 --speedup 8 --seed 0",
        "Trained for 4,210 steps (2 epochs of 67,349 examples) in bfloat16, taught by the dense model",
        "2.4e-07",
    ):
        assert words in card, words


def test_dropped_layers_are_named():
    assert "| 4 (dropped) | 0 | 0 |" in model_card(example_record(), "8x")


def of_type(record: Record, model_type: str | None) -> Record:
    """The record with models of that type, as where the model given was of it, or one width was kept for all layers."""
    models = tuple(model.model_copy(update={"model_type": model_type}) for model in record.models)
    return record.model_copy(update={"models": models})


@pytest.mark.parametrize(
    ("record", "name", "needed"),
    [
        (example_record(), "4x", True),
        (example_record(), "dense", False),
        (of_type(example_record(even=True), "bert"), "4x", False),
        (of_type(example_record(), "sparsebert-bert"), "dense", True),
        (train_record(), "sparse", True),
        (of_type(train_record(), "bert"), "sparse", False),
        (tree_record(), "fff-1x10", True),
        (tree_record(), "no-ffn", True),
    ],
)
def test_the_code_that_loads_imports_what_the_folder_needs(record, name, needed):
    card = model_card(record, name)
    compile(code(card), "card", "exec")
    assert ("import sparsebert" in code(card)) is needed
    assert ("Plain `transformers` is enough." in card) is not needed


def test_a_record_that_does_not_say_the_type_promises_nothing():
    card = model_card(of_type(example_record(), None), "dense")
    assert "import sparsebert" in code(card) and "is enough" not in card


def test_a_tree_is_named_in_the_shape():
    card = model_card(tree_record(), "fff-1x10")
    assert "| 4 | 12 | 1536 |" in card and "| 5 | 12 | tree 1x10 |" in card
    assert "| 5 | 12 | 0 |" in model_card(tree_record(), "no-ffn")


def test_the_card_says_how_each_phase_of_a_sparse_training_went():
    card = model_card(train_record(), "sparse")
    assert "Phase warm: trained for 600 steps (1 epochs of 20,000 examples) in float32; final loss 0.31." in card
    assert (
        "Phase prune: trained for 450 steps (1 epochs of 20,000 examples) in float32, taught by some/teacher; "
        "final loss 0.42." in card
    )


def test_times_are_of_the_cpu_where_there_is_a_gpu_too():
    record = example_record()
    where = record.environment.model_copy(update={"gpu": "NVIDIA H100"})
    card = model_card(record.model_copy(update={"environment": where}), "4x")
    assert "Times hold for Example CPU @ 2.60GHz with" in card and "H100" not in card


def test_the_output_difference_is_said_to_be_a_ratio():
    card = model_card(example_record(), "4x")
    assert "Largest difference of an output, masked against shrunk, over the largest output: 2.4e-07." in card


def test_missing_parts_are_left_out_of_the_card():
    card = model_card(sparse_record(), "4x")
    assert "Accuracy" not in card
    assert "Trained for" not in card
    assert "| 4x (4× faster) | – | – | 58.8 MB (−35.2%) |" in card


def test_a_text_of_the_record_cannot_break_the_card():
    record = example_record().model_copy(update={"command": "x ``` y", "task": "a|b\n# c"})
    card = model_card(record, "4x")
    assert "````sh\nx ``` y\n````" in card
    assert r"# all-MiniLM-L6-v2 on a\|b \# c: 4x" in card


MARKS = (
    "a|b",
    "[x](http://e.example)",
    "![x](y)",
    "`x`",
    "<img src=x onerror=alert(1)>",
    "**b** _i_ ~~s~~ # h $m$ \\",
    "&lt;b&gt; &amp;",
    "- x",
    "1. x",
    "+ x",
    "---",
    "===",
    "> x",
    "# x",
    "    x",
    "x\n\n# y\n| - |\n|---|",
    "www.e.example a@e.example http://e.example",
)


@pytest.mark.parametrize("text", MARKS)
def test_marks_in_a_text_are_letters_in_markdown(text):
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    shown = " ".join(text.split())
    tokens = reader.parse(in_markdown(text))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert "".join(part.content for part in tokens[1].children) == shown
    assert {part.type for part in tokens[1].children} <= {"text", "text_special"}
    row = reader.parse(f"| a | b |\n|---|---|\n| {in_markdown(text)} | c |")
    cells = [token for token in row if token.type == "inline"][2:]
    assert ["".join(part.content for part in cell.children) for cell in cells] == [shown, "c"]


def test_bare_addresses_are_no_links():
    assert in_markdown("http://a www.b a@b c @ d") == r"http\://a www\.b a\@b c @ d"


def test_control_characters_are_shown_as_such():
    assert plain("a\x1b[31mb\u202ec\nd") == "a\ufffd[31mb\ufffdc\nd"
    assert in_html("a\x00<\"'") == "a\ufffd&lt;&quot;&#x27;"


@pytest.mark.parametrize("name", ["dense", "4x"])
def test_no_text_of_a_record_becomes_markdown_of_the_card(name):
    evil = "x\n\n# y\n<b>|`[z](w)"
    record = example_record(model=evil)
    texts = dict.fromkeys(("command", "task", "created", "recipe_hash", "main_metric"), evil)
    where = record.environment.model_copy(update={"cpu": evil, "packages": {evil: evil}})
    card = model_card(record.model_copy(update=texts | {"environment": where, "notes": (evil,)}), name)
    body = card.split("---\n", 2)[2]
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    children = [part for token in tokens for part in token.children or ()]
    assert not {"html_inline", "image"} & {part.type for part in children}
    assert "html_block" not in {token.type for token in tokens}
    links = {part.attrs.get("href") for part in children if part.type == "link_open"}
    assert "w" not in links
    headings = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert [heading for heading in headings if heading.startswith("y")] == []


def test_an_unknown_model_is_an_error_with_the_nearest_name():
    with pytest.raises(UserError, match=r"Unknown model '4'; allowed: dense, 2x, 4x, 8x; Did you mean '4x'\?"):
        model_card(example_record(), "4")
