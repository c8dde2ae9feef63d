# SPDX-License-Identifier: Apache-2.0
"""A deployed model as a directory, a bundle: what lies in it, and what its ``inference.yml`` says, checked."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml

import ppcls.data.postprocess
import ppcls.data.transforms  # noqa: F401  (both register what a description may name)
from ppcls.config.node import Node, load_tree
from ppcls.config.registry import POSTPROCESSES, TRANSFORMS, Call, Count
from ppcls.config.signature import Problems, parse
from ppcls.config.trial import try_parts
from ppcls.utils.errors import ConfigError, ParityError, StorageError
from ppcls.utils.leftovers import put_back
from ppcls.utils.manifest import MANIFEST
from ppcls.utils.storage import verify

KIND = "deployed model"
FORMAT = 1
"""Of the files in a bundle; counted up when an older ppcls could not read them any more."""
DESCRIPTION = "inference.yml"
GRAPH = "inference.json"
PARAMETERS = "inference.pdiparams"
ONNX_GRAPH = "model.onnx"
INT8_GRAPH = "model_int8.onnx"
FILES_OF = {
    "paddle": (GRAPH, PARAMETERS),
    "paddle_onednn": (GRAPH, PARAMETERS),
    "onnxruntime": (ONNX_GRAPH,),
    "int8": (INT8_GRAPH,),
    "tensorrt": (ONNX_GRAPH,),
}
"""What each ``Global.runtime`` runs."""
AUTO = "auto"
MODULES = {name: "paddle" if name.startswith("paddle") else "onnxruntime" for name in FILES_OF}
LABELS = "label_list"
LABEL_ARGUMENTS = ("class_id_map_file", "delimiter")
"""Arguments of a postprocessing that lead to its labels; a bundle has the labels themselves."""


@dataclass(frozen=True)
class GraphSettings:
    """The section ``Global`` of ``inference.yml``: what the graph takes and gives.

    Args:
        model_name: the architecture.
        image_shape: channels, height and width of an input image; -1 for a height and width that are free.
        class_num: how many numbers it gives for each image.
        softmax: it gives probabilities; otherwise logits.
        class_names: the classes as the training set calls them, by number; evaluation numbers folders by them.
        imports: the modules that define transforms and postprocessing which are not part of ppcls.
        dtype: of an input image: ``float32`` [C, H, W] as the preprocessing makes it, or ``uint8`` [H, W, C], which
            the graph itself normalizes.
    """

    model_name: str
    image_shape: tuple[int, int, int]
    class_num: Count
    softmax: bool
    class_names: list[str] | None = None
    imports: list[str] | None = None
    dtype: Literal["float32", "uint8"] = "float32"

    @property
    def is_size_free(self) -> bool:
        """Whether it takes images of any height and width."""
        return min(self.image_shape) < 0

    def takes(self, image: np.ndarray) -> bool:
        """Whether an image has the shape and the type of its input."""
        channels, height, width = image.shape if self.dtype == "float32" else (image.shape[2], *image.shape[:2])
        wanted = zip(self.image_shape, (channels, height, width))
        return image.dtype == self.dtype and all(each in (-1, size) for each, size in wanted)


@dataclass(frozen=True)
class PreProcessSettings:
    """The section ``PreProcess``.

    Args:
        transform_ops: from an image file's bytes to the model's input.
    """

    transform_ops: Annotated[list[Call], TRANSFORMS]


@dataclass(frozen=True)
class Description:
    """What ``inference.yml`` says, but for labels and parity figures."""

    Global: GraphSettings
    PreProcess: PreProcessSettings
    PostProcess: Annotated[Call, POSTPROCESSES]


@dataclass(frozen=True)
class Bundle:
    """A deployed model's directory and what its description says.

    Attributes:
        directory: where the files are.
        graph: what the graph takes and gives.
        transforms: the preprocessing.
        postprocess: the postprocessing, without the labels.
        labels: the name of each class, or None.
        files: what its manifest lists.
        about: what its manifest says besides: versions, figures of the proof, the engines from the fastest on, and
            those that are unfit; empty of a bundle that is not published yet.
        sha256: of its manifest, which has the sha256 of every other file; "" of one that is not published yet.
    """

    directory: Path
    graph: GraphSettings
    transforms: tuple[Call, ...]
    postprocess: Call
    labels: tuple[str, ...] | None
    files: frozenset[str] = frozenset()
    about: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def runtime(self, wanted: str) -> str:
        """The engine to use: the one that is wanted, or with ``auto`` the fastest at the export that is installed.

        Raises:
            ConfigError: there is no such engine, or no graph for it.
            ParityError: the export has found that it does not answer as the trained model does.
        """
        if wanted == AUTO:
            fit = [name for name in self.about.get("fastest", []) if name in FILES_OF]
            there = [name for name in fit if find_spec(MODULES[name])]
            wanted = (there or fit or ["paddle"])[0]
        if wanted not in FILES_OF:
            raise ConfigError(f"Global.runtime: expected {AUTO} or one of {', '.join(FILES_OF)}; got {wanted}")
        lacking = next((name for name in FILES_OF[wanted] if name not in self.files), None)
        if lacking:
            option = "--int8" if wanted == "int8" else "--onnx"
            raise ConfigError(
                f"Global.runtime: {wanted}, but {self.directory} holds no {lacking}; "
                f"export it with {option}, or write Global.runtime=paddle"
            )
        if ("onnxruntime" if wanted == "tensorrt" else wanted) in self.about.get("unfit", []):
            raise ParityError(
                f"Global.runtime: {wanted} does not answer as the trained model does, as the export of "
                f"{self.directory} found; use {' or '.join(self.about.get('fastest', [])) or 'none of it'}"
            )
        return wanted

    def build_transforms(self) -> list[Any]:
        """The operations from an image file's bytes to the model's input."""
        return [call() for call in self.transforms]

    def build_postprocess(self) -> Any:
        """What makes results of logits, with the bundle's own labels."""
        postprocess = self.postprocess()
        if self.labels is not None:
            postprocess.labels = dict(enumerate(self.labels))
        return postprocess


def load_bundle(directory: str | os.PathLike) -> Bundle:
    """Verify a published bundle and read its description; nothing is imported that is not imported already.

    Args:
        directory: what the export wrote.

    Raises:
        StorageError: a file is missing, cut off or altered, or it is no deployed model, or one of a newer ppcls.
        ConfigError: ``inference.yml`` cannot be obeyed.
    """
    directory = Path(directory)
    if not directory.is_dir():
        put_back(directory)  # an export was killed between two renames, where there is no exchange
    if not directory.is_dir():
        raise StorageError(f"{directory}: there is no such directory; name one that tools/export_model.py wrote")
    manifest = verify(directory)
    if manifest.get("kind") != KIND:
        raise StorageError(
            f"{directory}: is a {manifest.get('kind')}, not a {KIND}; export it with tools/export_model.py"
        )
    about = _checked(manifest["about"], directory)
    if about.get("format", FORMAT) != FORMAT:
        raise StorageError(
            f"{directory}: its format is {about['format']}, and this ppcls reads {FORMAT}; use the ppcls that wrote it "
            f"({about.get('versions', {}).get('ppcls', 'which is not known')}), or export the model again"
        )
    if link := next((path for path in directory.iterdir() if path.is_symlink()), None):
        raise StorageError(f"{link}: is a link, and a deployed model has none; export the model again")
    missing = [name for name in (GRAPH, PARAMETERS, DESCRIPTION) if name not in manifest["files"]]
    if missing:
        raise StorageError(f"{directory}: its manifest does not list {missing[0]}; export the model again")
    if added := sorted({path.name for path in directory.iterdir()} - {*manifest["files"], MANIFEST}):
        raise StorageError(
            f"{directory / added[0]}: its manifest does not list it; remove it, or export the model again"
        )
    sha256 = manifest_sha256(directory)
    return replace(read_bundle(directory), files=frozenset(manifest["files"]), about=about, sha256=sha256)


def _checked(about: Mapping[str, Any], directory: Path) -> Mapping[str, Any]:
    """What a manifest says besides, of the types that it has to be of."""
    engines = [about.get(name, []) for name in ("fastest", "unfit")]
    is_right = all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in engines)
    if not is_right or not isinstance(about.get("versions", {}), dict) or type(about.get("format", FORMAT)) is not int:
        raise StorageError(f"{directory / MANIFEST}: says what it cannot; export the model again")
    return about


def manifest_sha256(directory: str | os.PathLike) -> str:
    """The sha256 of a bundle's manifest; "" where there is none, as for the instant in which one replaces another."""
    path = Path(directory, MANIFEST)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    except OSError:
        return ""


def read_bundle(directory: str | os.PathLike, import_modules: bool = False) -> Bundle:
    """Read the description of a bundle that is known to be whole.

    Args:
        directory: where it is.
        import_modules: import the modules that it names. Only for a bundle made here: a module runs
            code. Otherwise they have to be imported already, as the running configuration's own.

    Raises:
        ConfigError: ``inference.yml`` cannot be obeyed; one line for each problem, with its line.
    """
    directory = Path(directory)
    tree = load_tree(directory / DESCRIPTION)
    problems = Problems()
    tree.value.pop("Parity", None)  # figures for people, which ppcls wrote there before they were in the manifest
    labels = _pop_labels(tree, problems)
    _import_modules(tree, import_modules, problems)
    call = None if problems.errors else parse(tree, "", Description, problems)
    try_parts(problems)
    if problems.errors:
        raise ConfigError(problems.errors)
    description = call()
    graph = description.Global
    if labels is not None and len(labels) != graph.class_num:
        raise ConfigError(f"{directory / DESCRIPTION}: {len(labels)} labels for {graph.class_num} classes")
    transforms = tuple(replace(item, deferred=False) for item in description.PreProcess.transform_ops)
    return Bundle(directory, graph, transforms, description.PostProcess, labels)


def write_description(directory: Path, description: dict[str, Any]) -> None:
    """Write ``inference.yml``."""
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    (directory / DESCRIPTION).write_text(text, encoding="utf-8")


def _pop_labels(tree: Node, problems: Problems) -> tuple[str, ...] | None:
    """Take the labels out of the postprocessing's block: it finds names in a file, a bundle brings them along."""
    section = tree.value.get("PostProcess")
    blocks = section.value.values() if section and isinstance(section.value, dict) else ()
    for block in blocks:
        if isinstance(block.value, dict) and LABELS in block.value:
            node = block.value.pop(LABELS)
            labels = parse(node, f"PostProcess.{LABELS}", list[str], problems)
            return tuple(labels) if isinstance(labels, list) else None
    return None


def _import_modules(tree: Node, import_modules: bool, problems: Problems) -> None:
    section = tree.value.get("Global")
    modules = section.value.get("imports") if section and isinstance(section.value, dict) else None
    for module in modules.value if modules and isinstance(modules.value, list) else []:
        if not isinstance(module.value, str):
            problems.error(module, "Global.imports", "expected names of modules")
            continue
        if module.value in sys.modules:
            continue
        if not import_modules:
            problems.error(
                module,
                "Global.imports",
                f"the model needs the module '{module.value}', and a module runs code; "
                "if you trust it, name it in your own Global.imports",
            )
            continue
        try:
            importlib.import_module(str(module.value))
        except (ImportError, ValueError, TypeError) as error:
            problems.error(module, "Global.imports", f"'{module.value}' cannot be imported ({error})")
