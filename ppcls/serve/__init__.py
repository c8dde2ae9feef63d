# SPDX-License-Identifier: Apache-2.0
"""A deployed model over HTTP: limits, batches, draining, reloading. Knows nothing of training."""
