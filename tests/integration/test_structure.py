"""The shape of the tree: imports run downwards, and each heavy dependency stands in few files."""

import ast

import pytest
from conftest import ROOT

# Lower packages first; a module imports only from its own package and from those below.
PACKAGES = [
    "common",
    "audio",
    "data",
    "models",
    "runs",
    "sampling",
    "evaluation",
    "training",
    "exporting",
    "commands",
]
COMMANDS = {"train", "sample", "evaluate", "export", "app", "listen", "__main__"}
DATA_PREP_SEES = {"common", "audio", "data"}
CONFIGS_SEE = ("technogen_jax.models", "technogen_jax.common.run_config")  # the defaults of fields
# Where a dependency may be imported, so that it can be exchanged there.
HOMES = {
    "flax": {"technogen_jax/models"},
    "optax": {
        "technogen_jax/training/step.py",
        "technogen_jax/training/optimizers.py",
        "technogen_jax/evaluation/classifier.py",
        "technogen_jax/models/technogan/shaper_training.py",
    },
    "orbax": {"technogen_jax/runs/checkpoints.py"},
    "grain": {"technogen_jax/data/batching.py"},
    "soundfile": {"technogen_jax/audio/audio_files.py"},
    "soxr": {"technogen_jax/audio/audio_files.py", "technogen_jax/audio/ffmpeg_decoder.py"},
    "av": {"technogen_jax/audio/ffmpeg_decoder.py"},
    "tensorflow_datasets": {"technogen_jax/data/tfrecords.py"},
    "numba": {"technogen_jax/common/compiled.py", "data_prep/corpus/filters.py"},
    "google_crc32c": {"technogen_jax/data/tfrecords.py"},
    "tqdm": {"technogen_jax/common/progress.py"},
    "matplotlib": {"technogen_jax/audio/spectrogram_images.py", "technogen_jax/evaluation/charts.py"},
    "tensorboardX": {"technogen_jax/runs/metrics_log.py"},
    "absl": {"technogen_jax/train.py"},
    "onnx": {"technogen_jax/exporting/onnx_graph.py"},
    "starlette": {"technogen_jax/common/web_server.py", "technogen_jax/app", "technogen_jax/listen/server.py"},
    "uvicorn": {"technogen_jax/common/web_server.py"},
    "h11": {"technogen_jax/common/web_server.py"},
}
MOST_MODULE_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 500, 80, 10
SOURCES = sorted(path for folder in ("technogen_jax", "data_prep", "configs") for path in (ROOT / folder).rglob("*.py"))
# Parsed once, before any test. In Python 3.11 `ast.parse` fails if, while garbage is collected within it, another thread
# parses, as printing a traceback does: what one test left behind would fail another.
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def imported(path):
    """Dotted names that a file imports, with the names taken out of packages."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rank(package):
    return PACKAGES.index("commands" if package in COMMANDS else package)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    for name in imported(path):
        package, _, module = name.partition(".")
        module = module.split(".")[0]
        if package == "technogen_jax" and parts[0] == "technogen_jax" and parts[1] != "__init__":
            assert module in ("", parts[1]) or rank(module) < rank(parts[1]), f"{name} is not below {parts[1]}"
        elif package == "technogen_jax" and parts[0] == "data_prep":
            assert module in DATA_PREP_SEES, f"data_prep does not see {name}"
        elif package == "data_prep":
            assert parts[0] == "data_prep", f"{name}: the trainer does not see data_prep"
        elif package == "configs":
            assert parts[0] == "configs", f"{name}: a config arrives, it is not imported"
        if parts[0] == "configs":
            assert package in ("ml_collections", "configs") or name in CONFIGS_SEE, (
                f"a config imports the declarations of the fields alone, not {name}"
            )
        assert not (parts[0] == "data_prep" and package == "jax"), "data_prep works without JAX"


@pytest.mark.parametrize("dependency", HOMES)
def test_a_dependency_has_one_home(dependency):
    for path in SOURCES:
        relative = path.relative_to(ROOT).as_posix()
        if any(name.split(".")[0] == dependency for name in imported(path)):
            assert any(relative.startswith(home) for home in HOMES[dependency]), f"{relative} imports {dependency}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_are_short_enough_to_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_MODULE_LINES
    for node in ast.walk(TREES[path]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            parameters = len(node.args.args) + len(node.args.kwonlyargs)
            assert lines <= MOST_FUNCTION_LINES, f"{node.name} has {lines} lines; split it"
            assert parameters <= MOST_PARAMETERS, f"{node.name} has {parameters} parameters; pass a dataclass"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_stay_within_their_package(path):
    own = path.relative_to(ROOT).with_suffix("").parts[:2]
    modules = {}  # local name -> where it comes from
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("technogen_jax", "data_prep"):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                same = tuple(name.split(".")[:2]) == own
                assert same or not alias.name.startswith("_"), f"{name} is private to its package"
                if not same:
                    modules[alias.asname or alias.name] = name
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            is_private = node.attr.startswith("_") and node.attr not in ("_replace", "_asdict", "_fields", "_make")
            assert not is_private, f"{modules[node.value.id]}.{node.attr} is private to its package"
