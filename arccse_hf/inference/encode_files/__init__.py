"""Embedding files of any size into Parquet shards: in bounded memory, on all processes, going on after a stop."""
