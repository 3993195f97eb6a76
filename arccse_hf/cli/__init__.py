"""How command lines and recipes are read. Needs nothing but the standard library, so that help comes at once."""
