"""Every error a user of PureBoot can meet; the edges translate foreign ones into these.

    PureBootError
    ├── Malformed              the request cannot be read: a bad MAC, broken JSON
    ├── Invalid                it can be read, and a field of it is wrong
    ├── Unauthenticated        no credential, or one nobody knows
    ├── Forbidden              a known credential that may not do this
    ├── NotFound
    ├── Clash                  it contradicts what is stored
    │   ├── Fenced             another copy of this agent holds the right to write
    │   ├── IllegalEdge        the lifecycle has no such edge for whoever asks
    │   └── StaleVersion       somebody changed it since it was read
    ├── Gone                   a place in the feed that is not there any more
    ├── TooLarge
    ├── Busy                   try again after `retry_after` seconds
    │   ├── TooManyRequests
    │   ├── CentralUnavailable central did not answer in time, or not as central
    │   └── StorageFull        nothing was stored; boots go on
    └── SettingsError          the program cannot start as it is configured

`message` says what is wrong, `hint` what to do about it. Both are shown to people and to machines.
"""


class PureBootError(Exception):
    code = "error"
    hint = ""

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.hint if hint is None else hint
        self.code = self.code if code is None else code


class Malformed(PureBootError):
    code = "malformed"


class Invalid(PureBootError):
    code = "invalid"


class Unauthenticated(PureBootError):
    code = "unauthenticated"
    hint = "Send 'Authorization: Bearer TOKEN'."


class Forbidden(PureBootError):
    code = "forbidden"


class NotFound(PureBootError):
    code = "not_found"


class Clash(PureBootError):
    code = "conflict"


class Fenced(Clash):
    code = "fenced"
    hint = "Open a session; while that is refused, keep serving and queueing. An operator sees it in the site's health."


class IllegalEdge(Clash):
    code = "illegal_edge"


class StaleVersion(Clash):
    code = "stale_version"
    hint = "Read it again, look at what changed, and send your change with the new version."


class Gone(PureBootError):
    code = "gone"


class TooLarge(PureBootError):
    code = "too_large"


class Busy(PureBootError):
    code = "busy"

    def __init__(
        self, message: str, *, hint: str | None = None, code: str | None = None, retry_after: float = 1.0
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.retry_after = retry_after


class TooManyRequests(Busy):
    code = "too_many_requests"


class CentralUnavailable(Busy):
    code = "central_unavailable"


class StorageFull(Busy):
    code = "storage_full"
    hint = "Free disk space; machines keep booting, and what they report is refused until then."


class SettingsError(PureBootError):
    code = "settings"
