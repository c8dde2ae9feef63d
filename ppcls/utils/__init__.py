# SPDX-License-Identifier: Apache-2.0
"""Tools that know nothing of images or training."""
