"""The house: which module may import which, how long files and functions may grow, what a public name must have."""

import ast
import inspect
import pathlib

import pytest

import keras_norm_layers as knl

ROOT = pathlib.Path(knl.__file__).parent
PACKAGE = ROOT.name
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

LEAVES = [f"transforms.{name}" for name in ("geometric", "color", "curves", "pixel", "elastic", "mix")]

# A module (or all of a room, with a dot at the end) -> the rooms and modules of ours that it may import.
ARROWS = {
    "kernels.": ["kernels"],
    "statistics.": ["statistics", "kernels"],
    "validation": [],
    "layer": ["kernels"],
    "transforms.sampling": ["kernels"],
    "transforms.layout": ["kernels"],
    "transforms.plan": ["kernels", "transforms.layout"],
    "transforms.describe": ["transforms.plan"],
    "transforms.context": ["kernels"],
    "transforms.targets": ["kernels", "transforms.plan"],
    "transforms.layer": [
        "kernels",
        "layer",
        "validation",
        "transforms.plan",
        "transforms.context",
        "transforms.targets",
        "transforms.describe",
    ],
    "transforms.base": ["kernels", "validation", "transforms.layer", "transforms.plan", "transforms.sampling"],
    **{leaf: ["kernels", "layer", "validation", "transforms.base", "transforms.sampling"] for leaf in LEAVES},
    "transforms.affine": ["kernels", "layer", "validation", "transforms.base", "transforms.sampling"],
    "transforms.crop": ["kernels", "layer", "validation", "transforms.base", "transforms.plan", "transforms.sampling"],
    "transforms.jitter": ["layer", *(f"transforms.{name}" for name in ("base", "color", "curves", "sampling"))],
    "transforms.augment": ["kernels", "layer", "validation"]
    + [f"transforms.{n}" for n in ("base", "layer", "targets")],
    "transforms.choose": ["kernels", "layer", "validation", "transforms.base", "transforms.sampling"],
    "transforms.policies": ["kernels", "layer", "validation", "transforms"],
    "transforms": ["transforms"],
    "normalization.": ["kernels", "layer", "validation", "statistics", "normalization"],
    "data.": ["kernels", "validation", "statistics", "transforms.layer", "data"],
    "migration.": ["kernels", "validation", "statistics", "normalization", "transforms", "migration"],
    "export": ["kernels", "layer", "validation", "transforms", "normalization", "serving"],
    "serving": ["kernels", "layer", "validation", "transforms", "normalization"],
    "control": ["kernels", "validation", "transforms"],
    "pipeline": ["kernels", "validation", "transforms"],
    "fuse": ["layer", "transforms"],
    "plots": ["validation", "normalization"],
    "": ["control", "data", "fuse", "migration", "pipeline", "plots", "transforms", "normalization", "export"],
}
LIBRARIES = {"tensorflow", "jax", "torch"}
MAY_IMPORT_LIBRARIES = ("kernels.", "export", "serving")


def imports(path):
    """The names of all modules that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def local(module):
    return module.removeprefix(PACKAGE).removeprefix(".")


def rule(name):
    """The row of ``ARROWS`` for a module: its own, or that of the room that it is in."""
    rooms = [key for key in ARROWS if key.endswith(".") and f"{name}.".startswith(key)]
    return ARROWS[name] if name in ARROWS else ARROWS[rooms[0]]


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_down(module):
    allowed = rule(local(module))
    for imported in imports(MODULES[module]):
        if imported.split(".")[0] == PACKAGE:
            name = local(imported)
            assert any(f"{name}.".startswith(f"{room}.") for room in allowed), f"{module} imports {imported}"


@pytest.mark.parametrize("module", MODULES)
def test_only_public_keras_and_libraries_only_where_they_may_be(module):
    for imported in imports(MODULES[module]):
        assert not imported.startswith("keras.src"), f"{module} imports {imported}"
        if imported.split(".")[0] in LIBRARIES:
            assert f"{local(module)}.".startswith(MAY_IMPORT_LIBRARIES), f"{module} imports {imported}"


def test_the_package_has_no_unknown_module():
    for module in MODULES:
        rule(local(module))


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_stay_short_and_say_what_they_are(module):
    path = MODULES[module]
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{module} has no docstring"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            documented = node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0
            lines = node.end_lineno - node.lineno + 1 - documented
            assert lines <= 50, f"{module}.{node.name} has {lines} lines beside its docstring"


@pytest.mark.parametrize("name", knl.__all__)
def test_every_public_name_has_a_docstring_with_an_example(name):
    documentation = inspect.getdoc(getattr(knl, name))
    assert "Example" in documentation
    assert ">>>" in documentation


def test_the_public_names_are_a_sorted_explicit_list():
    assert list(knl.__all__) == sorted(knl.__all__)
    assert all(hasattr(knl, name) for name in knl.__all__)
