"""The rules of the house: which room may import which, and that the README draws the house as it stands."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "vidgru"
FLOORS = {
    "errors": 0, "types": 0, "files": 0, "processes": 0,
    "config": 1, "cache": 1, "leases": 1, "sources": 1,
    "extraction": 2, "datasets": 2, "model": 2,
    "training": 3, "prediction": 3,
    "demo": 4, "scale": 4,
    "api": 5, "cli": 5, "info": 5, "__main__": 5, "__init__": 5,
}  # fmt: skip
GROUND = {"errors", "types", "files", "processes"}  # one room: its files may use one another
DOORS = {
    "extraction.detections",
    "extraction.pipeline",
    "extraction.live.camera",
    "extraction.frames",
    "extraction.pictures",
    "extraction.shards",
}  # of the extraction wing
HEAVY = {
    "ultralytics": {"extraction.network", "extraction.detector", "extraction.tracker"},
    "openvino": {"extraction.graphs"},
    "onnx": {"model.onnx_graph", "model.onnx_network"},
    "onnxruntime": {"model.onnx_network"},
    "ray": {"scale.cluster"},
}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(HOUSE.rglob("*.py")):
        name = ".".join(path.relative_to(HOUSE).with_suffix("").parts)
        found[name.removesuffix(".__init__") if "." in name else name] = path
    return found


MODULES = modules()


def imports(path: Path) -> list[str]:
    """Every module imported anywhere in a file, inside functions too, absolute, as `a.b` or `a.b.name`."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
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


def room(module: str) -> str:
    return module.partition(".")[0]


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in MODULES} == set(FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    for target in own(MODULES[module]):
        mine, theirs = room(module), room(target)
        if mine == theirs or {mine, theirs} <= GROUND:
            continue
        if FLOORS[mine] == 5:
            assert FLOORS[theirs] <= 5
            continue
        assert FLOORS[theirs] < FLOORS[mine], f"vidgru.{module} imports vidgru.{target}: not below it"
        if theirs == "extraction" and FLOORS[mine] == 3:
            assert target in DOORS, f"vidgru.{module} enters the extraction wing through {target}"


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
def test_heavy_packages_have_their_rooms(package: str) -> None:
    users = {m for m, path in MODULES.items() if any(n.split(".")[0] == package for n in imports(path))}
    assert users <= HEAVY[package]


def test_readme_draws_the_tree_as_it_is() -> None:
    """The top two levels, one name a line: `name/  # what it is`, and indented below it what it holds."""
    root = HOUSE.parent
    block = re.search(r"<!-- tree -->\s*```\w*\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block, "README.md has no file tree"
    drawn: set[str] = set()
    top = ""
    for line in block[1].splitlines():
        name = line.split()[0].rstrip("/")
        if line.startswith(" "):
            drawn.add(f"{top}/{name}")
        else:
            top = name
            drawn.add(top)
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [Path(name).parts for name in listed.stdout.splitlines() if (root / name).exists()]
    kept = [parts for parts in paths if not parts[0].startswith(".") and parts[-1] != "__init__.py"]
    assert drawn == {"/".join(parts[:depth]) for parts in kept for depth in (1, 2) if len(parts) >= depth}
