# SPDX-License-Identifier: Apache-2.0
"""Packaging. Configurations and tools come along as package data: an installed ppcls works from any directory."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# The CPU wheel and every other build of Paddle (GPU, XPU, NPU, ...) provide the same module `paddle` under different
# distribution names, and an extra cannot take a requirement away. Whoever brings another build sets this variable.
PADDLE = [] if os.environ.get("PPCLS_WITHOUT_PADDLE") == "1" else ["paddlepaddle>=3.3.1,<3.4"]

CORE = ["numpy>=2.0", "opencv-python-headless>=5.0", "pillow>=10.0", "pyyaml>=6.0", "safetensors>=0.6.0", "tqdm>=4.62"]
EXTRAS = {
    # Not on PyPI: needs PPCLS_WITHOUT_PADDLE=1 and Paddle's own index; README.md has the whole command.
    "gpu": ["paddlepaddle-gpu>=3.3.1,<3.4"],
    # paddle2onnx holds onnx at 1.17 or below; neither has a wheel for Python 3.13. ml_dtypes is for int8 alone.
    "onnx": ['paddle2onnx==2.1.0; python_version < "3.13"', "onnxruntime>=1.19", "ml-dtypes>=0.4"],
    # Answers from a bundle, without Paddle if PPCLS_WITHOUT_PADDLE=1.
    "deploy": ["onnxruntime>=1.19"],
    "visualdl": ["visualdl>=2.5.3"],
    "plot": ["matplotlib>=3.8"],
    # Object storage as s3://; it brings fsspec. Other schemes need their own package, such as gcsfs for gs://.
    "cloud": ["s3fs>=2024.6"],
    # tools/serve.py. s3fs brings aiohttp too.
    "serve": ["aiohttp>=3.11", "prometheus-client>=0.20"],
    "dev": ["pytest>=8.0", "ruff>=0.12", "mypy>=1.15", "types-PyYAML", "scikit-learn>=1.5", "moto[server]>=5.0"],
}


def version() -> str:
    """The version, read from the package without importing it."""
    text = (ROOT / "ppcls" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


setup(
    name="ppcls",
    version=version(),
    description="A config-driven image-classification framework on PaddlePaddle 3",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9,<3.14",
    packages=[*find_packages(include=["ppcls", "ppcls.*"]), "ppcls.configs", "ppcls.tools"],
    package_dir={"ppcls.configs": "configs", "ppcls.tools": "tools"},
    package_data={"ppcls.configs": ["**/*.yaml"], "ppcls.serve": ["*.html"]},
    install_requires=[*PADDLE, *CORE],
    extras_require=EXTRAS,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(9, 14)),
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
