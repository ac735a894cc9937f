"""Which package may import which, and which modules may import heavy dependencies."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vidgru"
LAYERS = {
    "errors": 0, "flags": 0, "fonts": 0, "keypoints": 0, "numbers": 0, "types": 0, "locks": 0, "storage": 0,
    "config": 1, "sources": 1,
    "cache": 2, "model": 2, "video": 2,
    "datasets": 3, "detector": 3,
    "extraction": 4,
    "training": 5, "prediction": 5,
    "labeling": 6,
    "demo": 7, "scale": 7,
    "api": 8, "cli": 8, "info": 8, "__main__": 8, "__init__": 8,
}  # fmt: skip
GROUND = {module for module, layer in LAYERS.items() if layer == 0}  # may import one another
TOP = max(LAYERS.values())  # likewise
ENTRY_POINTS = {
    "extraction.import_detections",
    "extraction.pipeline",
    "extraction.live",
    "extraction.sharding",
}  # the modules of `extraction` that training and prediction may import
HEAVY = {
    "ultralytics": {"detector.yolo_head", "detector.weights", "detector.yolo", "detector.tracker"},
    "openvino": {"detector.openvino_export"},
    "onnx": {"model.onnx_graph"},
    "onnxruntime": set(),
    "ray": {"scale.cluster"},
}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__") if "." in name else name] = path
    return found


MODULES = modules()


@cache
def imports(path: Path) -> list[str]:
    """Every module imported anywhere in a file, inside functions too, absolute, as `a.b` or `a.b.name`."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: use absolute imports"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def own(path: Path) -> set[str]:
    """The modules of vidgru that a file imports."""
    found = set()
    for name in imports(path):
        if name == "vidgru":
            found.add("__init__")
        elif name.startswith("vidgru."):
            inner = name.removeprefix("vidgru.")
            while inner and inner not in MODULES:
                inner = inner.rpartition(".")[0]
            found.add(inner or "__init__")
    return found


def package_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_package_has_a_layer() -> None:
    assert {package_of(module) for module in MODULES} == set(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    for target in own(MODULES[module]):
        mine, theirs = package_of(module), package_of(target)
        if mine == theirs or {mine, theirs} <= GROUND:
            continue
        if LAYERS[mine] == TOP:
            assert LAYERS[theirs] <= TOP
            continue
        assert LAYERS[theirs] < LAYERS[mine], f"vidgru.{module} imports vidgru.{target}: not below it"
        if theirs == "extraction" and mine in ("training", "prediction"):
            assert target in ENTRY_POINTS, f"vidgru.{module} imports {target}, which is internal to extraction"


def test_no_cycles() -> None:
    graph = {module: own(path) - {"__init__"} for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join((*path, module))}"
        if module not in done:
            for target in graph[module]:
                if target != module:
                    visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("package", HEAVY)
def test_only_listed_modules_import_heavy_packages(package: str) -> None:
    users = {m for m, path in MODULES.items() if any(n.split(".")[0] == package for n in imports(path))}
    assert users <= HEAVY[package]


def test_readers_do_not_import_flags() -> None:
    """Annotation readers have nothing to do with the command line."""
    readers = {name: path for name, path in MODULES.items() if name.startswith("datasets.formats.")}
    assert readers
    assert [name for name, path in readers.items() if any(n.startswith("vidgru.flags") for n in imports(path))] == []
