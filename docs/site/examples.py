"""A griffe extension: the section `Example:` of our docstrings is shown as code, as griffe does with `Examples:`."""

from __future__ import annotations

from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Renames the section before it is read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Is called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
