# SPDX-License-Identifier: Apache-2.0
"""Every registered architecture for ``paddle.hub``: ``paddle.hub.load(repo_dir, "DenseNet121", source="local")``.

Arguments are those of the architecture, such as ``class_num`` and ``pretrained``; ``paddle.hub.help`` shows its text.
"""

# paddle.hub takes every callable here without underscore for a model.
import ppcls.arch as _arch  # noqa: F401  registers them
from ppcls.config.registry import ARCHS as _ARCHS

dependencies = ["paddle", "numpy", "safetensors"]

globals().update({_name: _ARCHS[_name] for _name in _ARCHS})
