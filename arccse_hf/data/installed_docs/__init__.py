"""Sample text that is already on the machine: what the quickstart trains on, and the default retrieval task."""

from .corpus import DocstringCorpus, docstring_corpus, held_out_pairs

__all__ = ["DocstringCorpus", "docstring_corpus", "held_out_pairs"]
