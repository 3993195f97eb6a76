"""The README's Python runs as it stands there."""

import re
import shutil
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

README = Path(__file__).parents[1] / "README.md"


def test_the_python_blocks_run_one_after_the_other(encoder, sentences, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4 and blocks[0].count("\n") <= 8
    monkeypatch.chdir(tmp_path)
    # A tiny encoder lies where the README's would come from the hub.
    shutil.copytree(encoder, "sentence-transformers/all-MiniLM-L6-v2")
    Path("tickets.txt").write_text("\n".join(f"{text} {word}" for text in sentences for word in ("a", "road", "river")))
    pairs = zip(sentences, sentences[1:], range(10), strict=False)
    Path("pairs.csv").write_text("sentence1,sentence2,score\n" + "".join(f"{a},{b},{c}\n" for a, b, c in pairs))
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert "'tickets-encoder': {'pairs_spearman': " in capsys.readouterr().out
    assert SentenceTransformer("out").encode("a cat") != pytest.approx(names["model"].encode("a cat"), abs=1e-6)
