"""A study is an ablation: variants of a recipe x seeds, compared with intervals."""
