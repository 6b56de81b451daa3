"""When a container is started again: docker's restart policies and their back-off."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# The delay doubles from run to run, and starts again once a run has lasted ten seconds.
_FIRST_DELAY, _LONGEST_DELAY, _SETTLED = 0.1, 60.0, 10.0


class Restarts:
    """The automatic restarts of one container since somebody started it."""

    def __init__(self, count: int = 0, delay: float = 0.0) -> None:
        self.count = count
        self.delay = delay

    def next(self, policy: Mapping[str, Any] | None, code: int, lasted: float) -> float | None:
        """Seconds until the next run, after one that ended with `code`; None for no other run.

        What somebody stopped is not to be asked about: no policy starts it again.
        """
        name = (policy or {}).get("Name") or "no"
        most = (policy or {}).get("MaximumRetryCount") or 0
        if name == "no":
            return None
        if name == "on-failure" and (code == 0 or (most and self.count >= most)):
            return None
        return self.again(lasted)

    def again(self, lasted: float) -> float:
        """Seconds until the next run, which comes whatever the policy says."""
        if lasted >= _SETTLED or not self.delay:
            self.delay = _FIRST_DELAY
        else:
            self.delay = min(self.delay * 2, _LONGEST_DELAY)
        self.count += 1
        return self.delay
