"""Why the service turns a request down: one class each, all in raudo's one tree of errors.

RaudoError
└── ServeError
    ├── BadRequestError         it makes no sense
    ├── UnauthorizedError       no token, or a wrong one
    ├── ForbiddenError          not allowed here, whoever asks
    ├── NotFoundError           no such model, version or path
    ├── MethodNotAllowedError   the path is there, but not for this method
    ├── TooLargeError           more bytes or pixels than are taken
    ├── UnsupportedMediaError   a type of content that is not taken
    ├── QueueFullError          more waits already than can be answered in time
    ├── NotReadyError           no engine yet, or it drains
    ├── DeadlineError           its time was over before it reached an engine
    └── EngineFailedError       the engine failed at it

What each is in a protocol, a status for instance, the transports say.
"""

from __future__ import annotations

import math
from typing import ClassVar

from raudo.errors import RaudoError


class ServeError(RaudoError):
    """A request that gets no answer.

    Args:
        message: Why, in one line.
        hint: What the client can do; None: what usually helps.

    Attributes:
        told: Whether the observer knows of it, so that each request is counted once.
    """

    code: ClassVar[str] = "internal"
    """What programs tell errors apart by; never changes."""
    advice: ClassVar[str] = "see the service's log"
    """What usually helps."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or self.advice)
        self.told = False


class BadRequestError(ServeError):
    """The request makes no sense."""

    code = "bad_request"
    advice = "/openapi.json describes every request"


class UnauthorizedError(ServeError):
    """A token is missing, or it is a wrong one."""

    code = "unauthorized"
    advice = "send 'Authorization: Bearer TOKEN', with the RAUDO_ADMIN_TOKEN of the service"


class ForbiddenError(ServeError):
    """What is asked for is switched off."""

    code = "forbidden"


class NotFoundError(ServeError):
    """There is no such model, version or path."""

    code = "not_found"
    advice = "/v1/models lists what is served, /openapi.json every path"


class MethodNotAllowedError(ServeError):
    """The path is there, but not for this method."""

    code = "method_not_allowed"


class TooLargeError(ServeError):
    """The body or the image is larger than the service takes."""

    code = "too_large"


class UnsupportedMediaError(ServeError):
    """The content is of a type that the service does not take."""

    code = "unsupported_media"


class QueueFullError(ServeError):
    """As many requests wait as may wait.

    Attributes:
        retry_after: Seconds in which those who wait now will have been taken.
    """

    code = "queue_full"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message, hint="send less at once, or try again later")
        self.retry_after = retry_after

    @property
    def seconds(self) -> int:
        """After how many whole seconds a client should try again."""
        return max(1, math.ceil(self.retry_after))


class NotReadyError(ServeError):
    """No engine is ready, or the service drains."""

    code = "not_ready"
    advice = "try again later, or ask another instance"


class DeadlineError(ServeError):
    """The request's time was over before an engine took it."""

    code = "deadline"
    advice = "send less at once, or give it a longer timeout"


class EngineFailedError(ServeError):
    """The engine failed at this request, more than once."""

    code = "engine_failed"


def as_served(error: Exception) -> ServeError:
    """Return what a client is told of whatever was raised: nothing of what is broken inside."""
    if isinstance(error, ServeError):
        return error
    if isinstance(error, RaudoError):
        return BadRequestError(error.message, hint=error.hint)
    return ServeError("internal error")
