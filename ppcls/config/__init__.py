# SPDX-License-Identifier: Apache-2.0
"""YAML files, checked against the signatures of what they name."""

from ppcls.config.load import load_config
from ppcls.config.schema import RunConfig

__all__ = ["RunConfig", "load_config"]
