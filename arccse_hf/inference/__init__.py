"""A finished encoder at work, one of ours or anybody's."""
