"""Correlations, geometry and retrieval: each against another way to compute the same number."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity as sklearn_cosines

from arccse_hf.errors import UserError
from arccse_hf.evaluation.bm25 import baseline_ranks
from arccse_hf.evaluation.geometry import GeometryTask, alignment, mean_cosine, uniformity
from arccse_hf.evaluation.metrics import correlations, cosine_similarity
from arccse_hf.evaluation.retrieval import RetrievalTask, ranks_of_own
from arccse_hf.evaluation.similarity_correlation import SimilarityCorrelation
from arccse_hf.evaluation.suite import fingerprint


def random_embeddings(rows, dim=8, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32) * 3


def average_ranks(values):
    """Ranks by definition: one more than the number of smaller values, ties sharing their mean."""
    return np.array([sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values])


class TestCorrelations:
    def test_spearman_is_pearson_of_average_ranks(self):
        rng = np.random.default_rng(0)
        predictions, references = rng.normal(size=60), rng.integers(0, 6, size=60)  # gold scores have many ties
        got = correlations(predictions, references)
        assert got["spearman"] == pytest.approx(
            np.corrcoef(average_ranks(predictions), average_ranks(references))[0, 1], abs=1e-12
        )
        assert got["pearson"] == pytest.approx(np.corrcoef(predictions, references)[0, 1], abs=1e-12)

    @pytest.mark.parametrize("noise", [0.0, 1e-7])
    def test_constant_predictions_warn_and_give_nan(self, noise):
        predictions = 1 - noise * np.arange(5)
        with pytest.warns(UserWarning, match="All predicted similarities are equal") as caught:
            got = correlations(predictions, [0, 1, 2, 3, 4])
        assert len(caught) == 1
        assert math.isnan(got["spearman"]) and math.isnan(got["pearson"])

    def test_small_but_real_differences_are_no_constant(self):
        assert correlations([0.99, 0.9901, 0.9902], [1, 2, 3])["spearman"] == pytest.approx(1)

    def test_gold_scores_of_any_size_are_ranked(self):
        assert correlations([0.1, 0.2, 0.4], [1e9, 1e9 + 1, 1e9 + 2])["spearman"] == pytest.approx(1)

    def test_a_nan_prediction_gives_nan(self):
        assert math.isnan(correlations([0.1, math.nan, 0.3], [1, 2, 3])["spearman"])

    def test_the_metric_of_the_evaluate_library_collects_batches(self, tmp_path):
        predictions, references = [0.1, 0.7, 0.3, 0.9], [1.0, 2.0, 4.0, 3.0]
        metric = SimilarityCorrelation(cache_dir=str(tmp_path))
        metric.add_batch(predictions=predictions[:3], references=references[:3])
        metric.add_batch(predictions=predictions[3:], references=references[3:])
        assert metric.compute() == pytest.approx(correlations(predictions, references))


class TestCosine:
    def test_agrees_with_the_definition(self):
        a, b = random_embeddings(5, seed=1), random_embeddings(5, seed=2)
        expected = [float(x @ y / (np.sqrt(x @ x) * np.sqrt(y @ y))) for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(cosine_similarity(a, b), expected, atol=1e-6)

    def test_equal_vectors_tie_at_exactly_one(self):
        a = random_embeddings(500, dim=384)
        assert set(cosine_similarity(a, a.copy()).tolist()) == {1.0}

    def test_a_zero_vector_is_similar_to_nothing(self):
        assert cosine_similarity(np.zeros((1, 4)), np.ones((1, 4))).tolist() == [0.0]


def unit(vector):
    return [x / math.sqrt(sum(y * y for y in vector)) for x in vector]


def squared_distance(a, b):
    return sum((x - y) ** 2 for x, y in zip(unit(a), unit(b), strict=True))


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
class TestGeometry:
    def test_alignment_against_a_loop(self, kind):
        a, b = random_embeddings(20, seed=1), random_embeddings(20, seed=2)
        expected = sum(squared_distance(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)) / 20
        assert alignment(kind(a), kind(b)) == pytest.approx(expected, rel=1e-5)

    def test_uniformity_against_a_double_loop(self, kind):
        rows = random_embeddings(30)
        potentials = [
            math.exp(-2 * squared_distance(x, y)) for x, y in itertools.combinations(rows.astype(float).tolist(), 2)
        ]
        assert uniformity(kind(rows)) == pytest.approx(math.log(sum(potentials) / len(potentials)), rel=1e-5)

    def test_mean_cosine_against_a_double_loop(self, kind):
        rows = random_embeddings(30)
        cosines = [1 - squared_distance(x, y) / 2 for x, y in itertools.combinations(rows.astype(float).tolist(), 2)]
        assert mean_cosine(kind(rows)) == pytest.approx(sum(cosines) / len(cosines), abs=1e-6)


class TestUniformity:
    def test_blocks_cover_every_pair_once(self):
        rows = random_embeddings(2500)  # more than two blocks of rows
        units = torch.nn.functional.normalize(torch.from_numpy(rows).double(), dim=1)
        expected = (-2 * torch.nn.functional.pdist(units).square()).exp().mean().log().item()
        assert uniformity(rows) == pytest.approx(expected, rel=1e-5)

    def test_t_is_the_sharpness(self):
        opposite = np.array([[1.0, 0.0], [-1.0, 0.0]])
        assert uniformity(opposite, t=2) == pytest.approx(-8)
        assert uniformity(opposite, t=0.5) == pytest.approx(-2)
        assert uniformity(opposite, t=20) == pytest.approx(-80)
        with pytest.raises(ValueError, match="t 30: must be above 0 and at most 20"):
            uniformity(opposite, t=30)

    def test_a_subset_is_seeded_and_close_to_the_whole(self):
        rows = random_embeddings(1500)
        sampled = uniformity(rows, max_sentences=700, seed=3)
        assert sampled == uniformity(rows, max_sentences=700, seed=3) != uniformity(rows, max_sentences=700, seed=4)
        assert sampled == pytest.approx(uniformity(rows), rel=0.05)

    def test_the_ends_of_the_scale(self):
        assert uniformity(np.ones((10, 4))) == pytest.approx(0, abs=1e-6)  # collapsed
        assert math.isnan(uniformity(np.ones((1, 4))))

    def test_embeddings_of_zeros_have_no_direction(self):
        """By the formulas, zeros would be spread as well as anything in a plane: uniformity -4, alignment 0."""
        zeros = np.zeros((5, 4))
        assert all(map(math.isnan, (uniformity(zeros), alignment(zeros, zeros), mean_cosine(zeros))))


class TestGeometryTask:
    def test_only_pairs_from_eighty_percent_of_the_highest_score_on_are_aligned(self):
        task = GeometryTask(["a", "b", "c"], ["d", "e", "a"], [5.0, 4.0, 3.9])
        assert sorted(task.sentences) == list("abcde")
        embeddings = random_embeddings(5)
        row = {s: embeddings[i].tolist() for i, s in enumerate(task.sentences)}
        got = task.score(embeddings)
        expected = (squared_distance(row["a"], row["d"]) + squared_distance(row["b"], row["e"])) / 2
        assert got["alignment"] == pytest.approx(expected, rel=1e-5)
        assert got["uniformity"] == pytest.approx(uniformity(embeddings))

    def test_a_scale_that_ends_at_one(self):
        assert len(GeometryTask(["a", "b"], ["c", "d"], [1.0, 0.79]).positives) == 1
        assert len(GeometryTask(["a", "b"], ["c", "d"], [1.0, 0.8]).positives) == 2

    @pytest.mark.parametrize("scores", [[], [0.0, -1.0]])
    def test_no_positive_pair_is_refused(self, scores):
        with pytest.raises(UserError, match="no positive pair"):
            GeometryTask(["a", "b"][: len(scores)], ["c", "d"][: len(scores)], scores)


def on_circle(*degrees):
    return np.array([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees], dtype=np.float32)


class TestRetrieval:
    def test_a_case_counted_by_hand(self):
        # documents at 0, 40 and 90 degrees; each query's distance to them is plain to see
        task = RetrievalTask("own", [("q0", "d0"), ("q1", "d1"), ("q2", "d2")])
        assert task.sentences == ["q0", "q1", "q2", "d0", "d1", "d2"]
        got = task.score(on_circle(5, 10, 15, 0, 40, 90))  # their own documents rank 1, 2 and 3
        assert got == pytest.approx(
            {
                "mrr_at_10": (1 + 1 / 2 + 1 / 3) / 3,
                "recall_at_1": 1 / 3,
                "recall_at_10": 1.0,
                "ndcg_at_10": (1 + 1 / math.log2(3) + 1 / 2) / 3,
                "mrr": (1 + 1 / 2 + 1 / 3) / 3,
            }
        )

    def test_agrees_with_the_evaluator_of_sentence_transformers(self):
        from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

        rng = np.random.default_rng(0)
        count, dim = 60, 6
        documents = rng.normal(size=(count, dim))
        queries = documents + rng.normal(size=(count, dim))  # noisy enough for ranks beyond 10
        task = RetrievalTask("own", [(f"q{i}", f"d{i}") for i in range(count)])
        embeddings = np.concatenate([queries, documents]).astype(np.float32)
        lookup = dict(zip(task.sentences, torch.from_numpy(embeddings), strict=True))

        class Stub:
            similarity_fn_name = "cosine"
            similarity = staticmethod(
                lambda a, b: torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T
            )

            def encode_query(self, texts, **_):
                return torch.stack([lookup[text] for text in texts])

            encode_document = encode_query

        evaluator = InformationRetrievalEvaluator(
            {str(i): f"q{i}" for i in range(count)},
            {str(i): f"d{i}" for i in range(count)},
            {str(i): {str(i)} for i in range(count)},
        )
        evaluator.score_functions = {"cosine": Stub.similarity}
        theirs = evaluator.compute_all_metrics(Stub())["cosine"]
        ours = task.score(embeddings)
        assert ours["mrr_at_10"] == pytest.approx(theirs["mrr@k"][10], abs=1e-9)
        assert ours["recall_at_1"] == pytest.approx(theirs["recall@k"][1], abs=1e-9)
        assert ours["recall_at_10"] == pytest.approx(theirs["recall@k"][10], abs=1e-9)
        assert ours["ndcg_at_10"] == pytest.approx(theirs["ndcg@k"][10], abs=1e-9)
        assert 0 < ours["recall_at_1"] < ours["recall_at_10"] < 1
        assert ours["mrr"] > ours["mrr_at_10"]

    def test_equal_documents_are_one_and_repeated_pairs_count_once(self):
        task = RetrievalTask("own", [("q0", "same"), ("q1", "same"), ("q2", "other"), ("q0", "same")])
        assert task.score_with_samples(np.eye(5))[1].groups.tolist() == [0, 0, 1]  # of one document, drawn together
        assert task.sentences == ["q0", "q1", "q2", "same", "other"]
        assert task.score(on_circle(0, 1, 89, 0, 90))["recall_at_1"] == 1

    def test_a_query_of_several_documents_can_be_answered_perfectly(self):
        """Each of the first three queries has two documents; BM25 passes over the other one too."""
        pairs = [(f"word{i} query", f"word{i} text{j}") for i in range(3) for j in range(2)] + [("alone", "apart")]
        task = RetrievalTask("own", pairs)
        directions = [0, 0, 20, 20, 40, 40, 80]
        assert task.score(on_circle(*directions, 1, 2, 21, 22, 41, 42, 80))["recall_at_1"] == 1
        embeddings = random_embeddings(14, seed=3)
        cosines = sklearn_cosines(embeddings[:7], embeddings[7:])
        expected = [
            1 + sum(cosines[i, j] > cosines[i, i] for j in range(7) if pairs[j][0] != pairs[i][0]) for i in range(7)
        ]
        ranks = ranks_of_own(embeddings[:7], embeddings[7:], task.own, task.right)
        assert ranks.tolist() == expected and max(expected) > 1
        by_words, by_both = baseline_ranks(task, on_circle(*directions, 1, 2, 21, 22, 41, 42, 80))
        assert by_words.tolist()[:6] == by_both.tolist()[:6] == [1] * 6

    @pytest.mark.parametrize("value", [1.0, math.nan])
    def test_a_collapsed_or_broken_encoder_finds_nothing(self, value):
        task = RetrievalTask("own", [(f"q{i}", f"d{i}") for i in range(20)])
        got = task.score(np.full((40, 4), value, dtype=np.float32))
        assert got["recall_at_10"] == 0 and got["mrr"] == pytest.approx(1 / 20)

    def test_blocks_of_queries_cover_them_all(self, monkeypatch):
        queries, documents = random_embeddings(10, seed=1), random_embeddings(30, seed=2)
        own = np.arange(10) + 5
        monkeypatch.setattr("arccse_hf.evaluation.retrieval.BLOCK_CELLS", 100)  # three queries at a time
        expected = []
        for query, document in zip(queries, own, strict=True):
            cosines = cosine_similarity(np.repeat(query[None], 30, axis=0), documents)
            expected.append(1 + sum(c > cosines[document] for c in cosines))
        assert ranks_of_own(queries, documents, own).tolist() == expected

    def test_a_single_document_is_refused(self):
        with pytest.raises(UserError, match="at least 2 different documents, got 1"):
            RetrievalTask("own", [("q0", "d"), ("q1", "d")])


def test_a_fingerprint_knows_which_document_answers_which_query():
    pairs = [("q0", "d0"), ("q1", "d1"), ("q2", "d0")]
    corrected = [*pairs[:2], ("q2", "d1")]
    tasks = [RetrievalTask("own", given, groups=[0, 1, 2]) for given in (pairs, corrected, pairs)]
    assert tasks[0].sentences == tasks[1].sentences
    first, second, third = map(fingerprint, tasks)
    assert first == third != second
