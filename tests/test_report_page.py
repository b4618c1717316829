import re
from html.parser import HTMLParser

import pytest

from example_record import (
    example_record,
    failed_record,
    full_record,
    noisy_record,
    plain_record,
    sparse_record,
    train_record,
    tree_record,
)
from sparsebert.errors import UserError
from sparsebert.records import Record
from sparsebert.reports import families, write_report
from sparsebert.reports.cards import summary_cards

pytestmark = pytest.mark.pictures

EVIL = "<script src=x onload=alert('x')>"
VOID = {"meta", "img", "source", "link", "input"}


class Reader(HTMLParser):
    """Text and links of a page; raises when tags are not balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.words: list[str] = []
        self.attributes: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "srcset", "href", "action")]
        self.attributes += [name for name, _ in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def nasty(record: Record) -> Record:
    """Every text of a record that a user could have written, with a script in it."""
    models = tuple(model.model_copy(update={"name": EVIL + model.name, "folder": EVIL}) for model in record.models[:2])
    where = record.environment.model_copy(
        update={"cpu": EVIL, "machine": EVIL, "packages": {EVIL: EVIL}, "cpu_flags": (EVIL,), "commit": EVIL}
    )
    recipe = record.recipe | {"model": EVIL, "data": f"'\"{EVIL}"}
    texts = dict.fromkeys(("command", "task", "created", "recipe_hash"), f"\"'{EVIL}")
    texts |= {"message": EVIL} if record.status == "failed" else {}
    update = {"models": models, "environment": where, "recipe": recipe, "notes": (EVIL,), "main_metric": EVIL}
    return record.model_copy(update=texts | update)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("page")
    path = write_report([example_record(), failed_record()], folder / "deep" / "report.html", folder / "png")
    assert path == folder / "deep" / "report.html"
    assert sorted(p.name for p in (folder / "png").iterdir()) == ["latency.png", "map.png", "pareto.png", "size.png"]
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(page):
    reader = Reader(page)
    assert "script" not in reader.tags
    assert "link" not in reader.tags
    pictures = [link for link in reader.links if not link.startswith("#")]
    assert pictures and all(link.startswith("data:image/svg+xml;base64,") for link in pictures)
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"url\(|@import|https?:", style)
    assert "default-src 'none'" in page


def test_the_page_says_what_came_out_and_how_it_was_measured(page):
    text = Reader(page).text
    for words in (
        "all-MiniLM-L6-v2 on sst2",
        "3.6× faster than dense on this machine, encoder 3.92×, 0.7 points of accuracy lost, 35% smaller file.",
        "90.6%",
        "3.85–3.97",
        "872 examples of the validation split of sst2, seed 0.",
        # sqrt(0.9128 * 0.0872 / 872) is 0.96 points.
        "Standard error of one such accuracy, from the number of examples alone: 1.0 points.",
        "2 threads on Example CPU @ 2.60GHz (2 cores); 15 interleaved rounds after warm-up",
        "torch 2.13.0+cpu",
        "sparsebert compress --task sst2",
        "learning_rate: 0.0001",
        "4,210",
    ):
        assert words in text, words


def test_pictures_can_be_left_out(tmp_path, monkeypatch):
    for value, there in (("on", True), ("off", False)):
        monkeypatch.setenv("SPARSEBERT_PICTURES", value)
        page = write_report([example_record()], tmp_path / f"{value}.html", tmp_path / f"{value}-plots")
        assert ("<img" in page.read_text(encoding="utf-8")) is there
        assert (tmp_path / f"{value}-plots").is_dir() is there
    monkeypatch.setenv("SPARSEBERT_PICTURES", "no")
    with pytest.raises(UserError, match="SPARSEBERT_PICTURES is neither on nor off; got no"):
        write_report([example_record()], tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()


def test_a_failed_run_is_shown_with_its_message(page):
    text = Reader(page).text
    assert "1 failed run" in text
    assert "The training loss became nan at step 120." in text


def test_a_page_of_failures_has_no_score(tmp_path):
    scored = example_record().model_copy(update={"status": "failed", "message": "stopped", "failed_step": 3})
    text = Reader(write_report([scored], tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "stopped" in text
    assert "at step 3" in text
    assert "91.3" not in text
    assert "×" not in text


@pytest.mark.parametrize("several", [False, True])
def test_every_text_of_a_record_is_escaped(tmp_path, several):
    records = [nasty(plain_record())]
    if several:
        other = nasty(example_record())
        records += [other.model_copy(update={"recipe": other.recipe | {"criterion": EVIL}}), nasty(failed_record())]
    content = write_report(records, tmp_path / "r.html").read_text(encoding="utf-8")
    reader = Reader(content)
    assert "<script" not in content
    assert "script" not in reader.tags
    assert not [name for name in reader.attributes if name.startswith("on")]
    assert EVIL in reader.text


def test_missing_parts_are_dashes_and_nothing_is_made_up(tmp_path):
    reader = Reader(write_report([sparse_record()], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "4x : encoder speed against dense not measured, 35% smaller file." in reader.text
    assert "Commit –" in reader.text
    assert "Accuracy" not in reader.text
    assert "Score against measured speed" not in reader.text


def test_the_same_records_give_the_same_page(tmp_path):
    first = write_report([plain_record()], tmp_path / "a.html").read_bytes()
    assert write_report([plain_record()], tmp_path / "b.html").read_bytes() == first


def text_of(records, folder) -> str:
    return Reader(write_report(records, folder / "r.html", folder / "png").read_text(encoding="utf-8")).text


CURVE = ("Score against sparsity", "Score by sparsity", "Models")
SINGLE = ("Side by side", "Where the parameters are", "What is left of each layer")


def test_curves_take_nothing_from_the_other_families(tmp_path):
    swept = [train_record(sparsity=sparsity) for sparsity in (0.5, 0.9)]
    others = [example_record(name="cut"), example_record(criterion="magnitude", name="cut too"), tree_record()]
    text = text_of([*swept, *others], tmp_path)
    for heading in (*CURVE, *SINGLE, "Fast feedforward layers", "Timings"):
        assert f" {heading} " in text, heading
    assert "What the training did" not in text
    names = sorted(path.name for path in (tmp_path / "png").iterdir())
    assert names[0] == "curves.png" and "pareto.png" in names and len(names) == 2 + 3 * 3


def test_pictures_beside_curves_say_whose_they_are(tmp_path):
    records = [*(train_record(sparsity=sparsity) for sparsity in (0.5, 0.9)), plain_record()]
    content = write_report(records, tmp_path / "r.html").read_text(encoding="utf-8")
    label = next(family.label for family in families(records) if family.first is records[2])
    assert content.count(f"<h3>{label}</h3>") == 5


def test_a_sweep_alone_has_its_times_and_no_pictures_of_single_points(tmp_path):
    text = text_of([train_record(sparsity=sparsity) for sparsity in (0.5, 0.9)], tmp_path)
    for heading in (*CURVE, "Score against measured speed", "Timings"):
        assert f" {heading} " in text, heading
    assert not [heading for heading in SINGLE if f" {heading} " in text]
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == ["curves.png", "pareto.png"]


def test_the_header_names_the_cpu_that_times_are_of(tmp_path):
    record = plain_record()
    where = record.environment.model_copy(update={"gpu": "NVIDIA H100"})
    content = write_report([record.model_copy(update={"environment": where})], tmp_path / "r.html").read_text("utf-8")
    header = content[content.index("<header>") : content.index("</header>")]
    assert "Example CPU" in header and "H100" not in header and "H100" in content


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> str:
    return write_report([full_record()], tmp_path_factory.mktemp("full") / "r.html").read_text(encoding="utf-8")


def test_contents_lead_to_every_section(full):
    reader = Reader(full)
    anchors = [link[1:] for link in reader.links if link.startswith("#")]
    assert anchors == re.findall(r'<section id="([^"]+)"', full)
    assert len(set(anchors)) == len(anchors) > 10 and "what-the-models-decide" in anchors


def test_the_card_of_a_model_has_the_whole_model_first_and_every_number_its_range():
    text = Reader(summary_cards(families([full_record()])[0])).text
    card = text[text.index("4x asked") : text.index("8x asked")]
    # 14.614 ms over 14.2 / 3.92 + 0.414 ms.
    assert card.startswith("4x asked: 4× faster encoder 3.62× as fast as dense 3.55–3.69 ")
    for words in (
        "Accuracy 90.6% 88.6–92.4",
        "Change, points −0.7 −1.7 to +0.4",
        "Majority class 50.9%",
        "Same as dense 95.1%",
        "Encoder speedup 3.92× 3.84–4.00",
        "Latency, ms 4.04 3.98–4.15",
    ):
        assert words in card, words


def test_a_speedup_that_is_too_noisy_is_no_headline():
    text = Reader(summary_cards(families([noisy_record()])[0])).text
    card = text[text.index("4x asked") : text.index("8x asked")]
    assert "about 2–4× as fast as dense too noisy to say" in card and "3.62" not in card


def test_without_times_the_score_is_the_headline():
    record = train_record()
    untimed = record.models[0].model_copy(update={"timings": ()})
    cards = summary_cards(families([record.model_copy(update={"models": (untimed,)})])[0])
    assert Reader(cards).text.startswith("sparse 82.0% accuracy File")


def test_a_model_that_gives_one_class_is_warned_of(tmp_path):
    record = full_record()
    model = record.models[1]
    decisions = model.decisions.model_copy(update={"confusion": ((0, 428), (0, 444))})
    models = (record.models[0], model.model_copy(update={"decisions": decisions}))
    record = record.model_copy(update={"models": models})
    assert "Every example is given the one class 'positive'." in summary_cards(families([record])[0]).replace(
        "&#x27;", "'"
    )


def test_decisions_flips_and_code_are_on_the_page(full):
    text = Reader(full).text
    for words in (
        "97.0% decided as by the dense model",
        "True class negative given positive given",
        "negative 391 91.4% 37 8.6% positive 40 9.0% 404 91.0%",
        "it is never dull, only long negative positive negative right",
        'classify = pipeline("text-classification", model="8x")',
        "sparsebert predict 8x 'A sentence.'",
    ):
        assert words in text, words


@pytest.mark.parametrize("record", [example_record(), train_record(), tree_record(), sparse_record(), failed_record()])
def test_old_records_of_every_kind_have_a_page(tmp_path, record):
    content = write_report([record], tmp_path / "r.html", tmp_path / "png").read_text(encoding="utf-8")
    assert "What the models decide" not in Reader(content).text


def test_texts_of_decisions_are_escaped(tmp_path):
    record = full_record()
    model = record.models[1]
    flip = model.decisions.flips[0].model_copy(update={"text": EVIL, "label": EVIL, "dense": EVIL})
    decisions = model.decisions.model_copy(update={"classes": (EVIL, "b"), "flips": (flip,)})
    models = (record.models[0], model.model_copy(update={"decisions": decisions, "folder": EVIL}))
    content = write_report([record.model_copy(update={"models": models})], tmp_path / "r.html").read_text("utf-8")
    assert "<script" not in content and Reader(content).text.count(EVIL) >= 6


def test_many_families_are_told_folded_in(tmp_path):
    records = [train_record(sparsity=sparsity / 10) for sparsity in range(3, 9)]
    content = write_report(records, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<summary>The 6 families in words</summary>" in content


def test_no_records_are_an_error_and_no_file(tmp_path):
    with pytest.raises(UserError, match="nothing to report; give at least one"):
        write_report([], tmp_path / "r.html")
    assert not list(tmp_path.iterdir())
