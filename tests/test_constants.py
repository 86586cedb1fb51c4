"""A constant has one value: a second assignment further down in its module would replace the first without a word."""

import ast
from collections import Counter

from quantrust.digest import SCRIPTS


def test_no_module_assigns_a_constant_twice() -> None:
    twice = []
    for path in sorted(SCRIPTS.rglob("*.py")):
        targets = [
            target
            for statement in ast.parse(path.read_bytes()).body
            for target in getattr(statement, "targets", [getattr(statement, "target", None)])
        ]
        names = [
            node.id
            for target in targets
            if target is not None
            for node in ast.walk(target)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        ]
        counts = Counter(name for name in names if name.isupper())
        twice += [f"{path.relative_to(SCRIPTS)}: {name}" for name, count in counts.items() if count > 1]
    assert not twice
