# SPDX-License-Identifier: Apache-2.0
"""Pickles that do what a pickle of weights must not be able to do."""


class Calls:
    """Pickled as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call

    def __call__(self):
        """Only to be taken for a callable, as the result of the call would be."""
