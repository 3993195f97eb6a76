"""A recipe or a study as YAML or JSON: every value as the text that stands there."""

from __future__ import annotations

from pathlib import Path

import yaml

from ..cli.options import Settings
from ..errors import UserError, one_line

MAX_BYTES = 200_000
MAX_VALUES = 20_000
"""Values of a file once its aliases are written out: an alias of an alias of an alias fills any memory."""


def read_config(path: Path) -> Settings:
    """Returns the settings of a YAML or JSON file; one without a value (`name:`, null) is left out.

    Values stay text, because the table of fields knows their types: YAML would read 1e-5 as text and `no` as a boolean.

    Raises:
        UserError: The file cannot be read, is no YAML, or does not hold lines of `name: value`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path}: has more than {MAX_BYTES:,} bytes, which no config file needs")
        loader = _TextLoader(content.decode("utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            return {}
        _check_size(path, node)
        values = loader.construct_document(node)
    except OSError as error:
        raise UserError(f"{path}: cannot read the config file ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot read the config file (not UTF-8 text: byte {error.start})") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" (line {mark.line + 1})" if mark else ""
        raise UserError(f"{path}: not valid YAML or JSON: {one_line(error.problem)}{line}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML or JSON: {one_line(error)}") from error
    except RecursionError as error:
        raise UserError(f"{path}: not valid YAML or JSON: brackets within brackets, too deep to read") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a config file holds lines of `name: value`")
    return {name: value for name, value in values.items() if value is not None}


class _TextLoader(yaml.SafeLoader):
    """A safe loader that leaves scalars text, and takes each name once."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = set()
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a name must be plain text", problem_mark=name.start_mark)
            if name.value in names and name.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(problem=f"{name.value} is given twice", problem_mark=name.start_mark)
            names.add(name.value)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(problem="expected lines of `name: value`", problem_mark=node.start_mark)
        self.flatten_mapping(node)  # merge keys
        return {name.value: self.construct_object(value, deep=True) for name, value in node.value}

    def construct_text(self, node: yaml.Node) -> str:
        return str(self.construct_scalar(node))


_TextLoader.yaml_constructors = {
    "tag:yaml.org,2002:null": lambda loader, node: None,
    "tag:yaml.org,2002:seq": lambda loader, node: loader.construct_sequence(node, deep=True),
    "tag:yaml.org,2002:map": lambda loader, node: loader.construct_mapping(node),
    None: yaml.SafeLoader.construct_undefined,
}
for _tag in ("str", "int", "float", "bool", "timestamp", "value"):
    _TextLoader.yaml_constructors[f"tag:yaml.org,2002:{_tag}"] = _TextLoader.construct_text


def _check_size(path: Path, root: yaml.Node) -> None:
    """Raises UserError where the file is too large with its aliases written out, or holds itself."""
    sizes: dict[int, int] = {}
    unfinished: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in unfinished:
            raise UserError(f"{path}: an alias (line {node.start_mark.line + 1}) stands within what it names")
        unfinished.add(id(node))
        parts = node.value if not isinstance(node, yaml.ScalarNode) else []
        children = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
        sizes[id(node)] = 1 + sum(map(size, children))
        return sizes[id(node)]

    if size(root) > MAX_VALUES:
        raise UserError(f"{path}: has more than {MAX_VALUES:,} values with its aliases written out")
