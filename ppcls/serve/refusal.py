# SPDX-License-Identifier: Apache-2.0
"""A request that is not answered as it was meant."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 (it is an answer)
    """A request is refused.

    Args:
        status: of the response.
        says: what is wrong, and what to do instead.
        may_retry: whether the same request may be answered a little later.
    """

    def __init__(self, status: int, says: str, may_retry: bool = False) -> None:
        super().__init__(says)
        self.status, self.may_retry = status, may_retry
