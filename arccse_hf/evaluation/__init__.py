"""Evaluation: a task is sentences plus a score of their embeddings, in training and on the command line alike."""

from .geometry import GeometryTask, alignment, mean_cosine, uniformity
from .metrics import correlations, cosine_similarity
from .retrieval import RetrievalTask
from .sts import ScoredPairs, STSTask, read_scored_pairs, read_sts
from .suite import Task, TaskSuite, averages, greater_is_better, measures_test_sets, split_dim
from .tasks import TASK_NAMES, load_tasks
from .transfer import TransferTask

__all__ = [
    "TASK_NAMES",
    "GeometryTask",
    "RetrievalTask",
    "STSTask",
    "ScoredPairs",
    "Task",
    "TaskSuite",
    "TransferTask",
    "alignment",
    "averages",
    "correlations",
    "cosine_similarity",
    "greater_is_better",
    "load_tasks",
    "mean_cosine",
    "measures_test_sets",
    "read_scored_pairs",
    "read_sts",
    "split_dim",
    "uniformity",
]
