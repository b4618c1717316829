"""Embeddings on pairs and on retrieval sets: the maths beside sentence-transformers, files read, the gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from sparsebert import Predictor
from sparsebert.data.retrieval import read_retrieval_set
from sparsebert.errors import UserError
from sparsebert.models.sentence import SentenceVector
from sparsebert.runs.check_vectors import retrieval_scores
from sparsebert.tasks.retrieval import nearest_documents, retrieval_values
from test_embeddings import save_embedder
from tiny_run import assert_refused, run_cli

DOCUMENTS = {f"d{number}": f"w{number} w{number + 1} w{number + 7}" for number in range(30)}
QUERIES = {f"q{number}": f"w{number} w{number + 2}" for number in range(12)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, scored pairs, and a retrieval set."""
    folder = tmp_path_factory.mktemp("vectors")
    save_embedder(folder / "dense")
    save_embedder(folder / "other")
    rows = [f"w{number} good,w{number + 1} bad,{number % 5}" for number in range(20)]
    (folder / "pairs.csv").write_text("\n".join(["a,b,score", *rows]) + "\n", encoding="utf-8")
    write_set(folder / "set")
    return folder


def write_set(folder: Path, judged: str = "q{0}\td{0}\t1\nq{0}\td{1}\t2\n") -> Path:
    """Queries with two relevant documents each, but the last, which has none."""
    (folder / "qrels").mkdir(parents=True)
    corpus = [json.dumps({"_id": one, "title": "good", "text": text}) for one, text in DOCUMENTS.items()]
    queries = [json.dumps({"_id": one, "text": text}) for one, text in QUERIES.items()]
    (folder / "corpus.jsonl").write_text("\n".join(corpus) + "\n", encoding="utf-8")
    (folder / "queries.jsonl").write_text("\n".join(queries) + "\n", encoding="utf-8")
    lines = "".join(judged.format(number, number + 3) for number in range(11))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines, encoding="utf-8")
    return folder


def test_values_of_a_query_by_hand():
    # Documents 7, 3, 9 in this order; 3 is relevant with grade 2, 5 with grade 1.
    found = retrieval_values([[7, 3, 9]], [{3: 2.0, 5: 1.0}])
    gain, best = 2 / np.log2(3), 2 / np.log2(2) + 1 / np.log2(3)
    assert {name: value.tolist() for name, value in found.items()} == {
        "ndcg_at_10": [pytest.approx(gain / best)],
        "recall_at_10": [0.5],
        "mrr_at_10": [0.5],
    }
    nothing = retrieval_values([[7, 9, 8]], [{3: 2.0}])
    assert [value.tolist() for value in nothing.values()] == [[0.0]] * 3


def test_the_nearest_come_first_and_equal_ones_in_their_order():
    documents = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
    assert nearest_documents(np.array([[3.0, 0.0], [0.0, 1.0]]), documents) == [[1, 2, 3, 0], [0, 3, 1, 2]]


def test_a_query_does_not_find_itself(tmp_path: Path):
    vectors = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    assert nearest_documents(vectors[:2], vectors, (0, None)) == [[1, 2, 0], [1, 0, 2]]
    rows = [json.dumps({"_id": str(number), "text": f"w{number}"}) for number in range(3)]
    for name in ("corpus", "queries"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "qrels").mkdir()
    # The second is judged to be its own answer: then its id says nothing.
    (tmp_path / "qrels" / "test.tsv").write_text("0\t2\t1\n1\t1\t1\n", encoding="utf-8")
    assert read_retrieval_set(tmp_path).own == (0, None)


def test_scores_are_those_of_sentence_transformers(home: Path):
    model, given = Predictor(home / "dense"), read_retrieval_set(home / "set")
    found = {one.metric: one for one in retrieval_scores((model, model), given, lambda count: None).first}
    # It takes grades for hits alone.
    once = retrieval_values(
        nearest_documents(model.outputs(given.queries), model.outputs(given.documents)),
        [dict.fromkeys(grades, 1.0) for grades in given.relevant],
    )
    relevant = {f"q{number}": {f"d{number}", f"d{number + 3}"} for number in range(11)}
    theirs: Any = InformationRetrievalEvaluator(
        {one: QUERIES[one] for one in relevant}, {one: f"good {text}" for one, text in DOCUMENTS.items()}, relevant
    )
    from sentence_transformers import SentenceTransformer

    expected = theirs(SentenceTransformer(str(home / "dense")))
    assert once["ndcg_at_10"].mean() == pytest.approx(expected["cosine_ndcg@10"])
    assert found["recall_at_10"].value == pytest.approx(expected["cosine_recall@10"])
    assert found["mrr_at_10"].value == pytest.approx(expected["cosine_mrr@10"])
    assert given.unjudged == 1 and found["mrr_at_10"].examples == 11


def test_a_model_against_itself_loses_nothing_and_mixes(home: Path):
    data = ("--data", home / "set", "--max-drop", 0, "--json")
    said = run_cli("check", home / "dense", home / "dense", *data)
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert found["metric"] == "ndcg_at_10" and found["rows"] == 11
    assert found["notes"] == ["11 queries, 30 documents", "1 queries without a relevant document are left out"]
    values = [[one["value"] for one in found[name]] for name in ("first", "second", "mixed")]
    assert values[0] == values[1] == values[2] and found["second"][0]["change_low"] == 0


def test_pairs_are_scored_by_the_rank_of_their_cosines(home: Path, tmp_path: Path):
    columns = ("--text-column", "a", "--text-column", "b", "--label-column", "score")
    said = run_cli("check", home / "dense", home / "other", "--data", home / "pairs.csv", *columns, "--json")
    assert said.exit_code == 0, said.output
    model = Predictor(home / "dense")
    one, other = (model.outputs([f"w{n + step} {word}" for n in range(20)]) for step, word in ((0, "good"), (1, "bad")))
    expected = spearmanr((one * other).sum(axis=1), [n % 5 for n in range(20)]).statistic
    assert json.loads(said.stdout)["first"][0]["value"] == pytest.approx(expected, abs=1e-6)
    single = run_cli("check", home / "dense", home / "other", "--data", home / "pairs.csv", *columns[:2], *columns[4:])
    assert_refused(single, ["Scores are of pairs of texts; got text column a; give --text-column twice"])


def test_without_scores_the_gate_is_the_likeness_of_the_vectors(home: Path, tmp_path: Path):
    (tmp_path / "a.txt").write_text("\n".join(DOCUMENTS.values()), encoding="utf-8")
    save_embedder(tmp_path / "cls", SentenceVector(("cls",), normalize=False))
    given = ("check", home / "dense", tmp_path / "cls", "--data", tmp_path / "a.txt", "--max-drop", 1)
    said = run_cli(*given)
    assert said.exit_code == 1 and "cosine falls by" in said.output and "neighbours" in said.output


def test_vectors_of_other_lengths_are_compared_by_what_they_find(home: Path, tmp_path: Path):
    save_embedder(tmp_path / "two", SentenceVector(("mean", "cls"), normalize=True))
    ask = ("check", home / "dense", tmp_path / "two", "--json", "--data")
    columns = ("--text-column", "a", "--text-column", "b", "--label-column", "score")
    for given in ((home / "set",), (home / "pairs.csv", *columns)):
        said = run_cli(*ask, *given)
        assert said.exit_code == 0, said.output
        found = json.loads(said.stdout)
        assert "cannot be mixed" in found["notes"][-1] and "mixed" not in {name for name in found if found[name]}
        assert found["second"][0]["change_low"] is not None and "largest_difference" not in found
    (tmp_path / "a.txt").write_text("\n".join(DOCUMENTS.values()), encoding="utf-8")
    assert_refused(run_cli(*ask, tmp_path / "a.txt"), ["Vectors of different lengths", "got 32 and 64 numbers"])


def test_a_title_alone_is_a_document(tmp_path: Path):
    write_set(tmp_path / "set")
    file = tmp_path / "set" / "corpus.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace(DOCUMENTS["d3"], ""), encoding="utf-8")
    assert read_retrieval_set(tmp_path / "set").documents[3] == "good"


def test_judgements_need_no_header(home: Path, tmp_path: Path):
    write_set(tmp_path / "set")
    file = tmp_path / "set" / "qrels" / "test.tsv"
    with_header = read_retrieval_set(tmp_path / "set")
    file.write_text(file.read_text(encoding="utf-8").partition("\n")[2], encoding="utf-8")
    assert read_retrieval_set(tmp_path / "set") == with_header


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("corpus.jsonl", None, "A retrieval set has corpus.jsonl, queries.jsonl and a folder qrels"),
        ("corpus.jsonl", "[]\n", "corpus.jsonl, line 1: no JSON object with an _id"),
        ("queries.jsonl", '{"_id": "q1", "text": "a"}\n{"_id": "q1", "text": "b"}\n', "line 2: the id is there twice"),
        ("queries.jsonl", '{"_id": "q1", "text": " "}\n', "line 1: 'text' has to be a text"),
        ("queries.jsonl", b"\xff{}", "queries.jsonl"),
        ("qrels/test.tsv", "q0\td0\tinf\n", "test.tsv, line 1: the score is not finite; got inf"),
        ("qrels/test.tsv", None, "The folder qrels has no .tsv file of judgements"),
        (
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\nq0\td0\n",
            "test.tsv, line 2: not query-id, corpus-id and score; got q0",
        ),
        (
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\nq99\td0\t1\n",
            "test.tsv, line 2: no query has this id; got 'q99'",
        ),
        (
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\nq0\td99\t1\n",
            "test.tsv, line 2: no document has this id; got 'd99'",
        ),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0\td0\t0\n", "No query has a relevant document"),
    ],
)
def test_a_damaged_set_is_named(file: str, text: str | bytes | None, expected: str, tmp_path: Path):
    write_set(tmp_path / "set")
    if text is None:
        (tmp_path / "set" / file).unlink()
    else:
        (tmp_path / "set" / file).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as caught:
        read_retrieval_set(tmp_path / "set")
    assert expected in str(caught.value)
