"""What a worker touches: ``join()``, ``Fleet``, and what they give."""

from __future__ import annotations

import sys
import types
from typing import Any

from tars_settings.agent.follower import Status
from tars_settings.join.fleet import Fleet, Join, join
from tars_settings.join.live import Live
from tars_settings.join.watch import Change, Watch

__all__ = ["Change", "Fleet", "Join", "Live", "Status", "Watch", "join"]


class _Callable(types.ModuleType):
    """Importing this package puts it on ``tars_settings`` under the name of the function: so it can be called too."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return join(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
