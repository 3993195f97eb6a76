"""Studies: variants of a recipe over several seeds, compared with intervals."""
