"""A recipe on a tiny encoder, and study files over it."""

import pytest
import yaml


@pytest.fixture
def base(tmp_path, encoder, sentences):
    """A recipe on a tiny encoder; its folder holds text and scored pairs too."""
    (tmp_path / "text.txt").write_text("\n".join(sentences) + "\n")
    pairs = zip(sentences[:12], sentences[5:17], strict=True)
    rows = "".join(f"{a},{b},{i % 6}\n" for i, (a, b) in enumerate(pairs))
    (tmp_path / "scored.csv").write_text("sentence1,sentence2,score\n" + rows)
    fields = {
        "model_name_or_path": encoder, "train_file": [str(tmp_path / "text.txt")],
        "output_dir": "unused", "eval_data": str(tmp_path / "scored.csv"), "projection": "none",
        "per_device_train_batch_size": 8, "max_steps": 3, "eval_steps": 1, "triplet_min_tokens": 10,
        "learning_rate": "1e-3", "max_seq_length": 24, "cosine_samples": False, "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


@pytest.fixture
def study_file(base):
    """Writes a study over `base` with the given keys."""

    def write(**content):
        path = base.parent / "study.yaml"
        path.write_text(
            yaml.safe_dump({"base": "base.yaml", "output_dir": str(base.parent / "out")} | content, sort_keys=False)
        )
        return path

    return write
