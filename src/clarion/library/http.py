"""Requests to hubs: one client's settings, what is tried again, and what becomes an error.

Proxies are those of the environment (`https_proxy` and the like), as httpx reads them. A token goes to the
host that it is for and to no other: httpx drops it where a redirect leaves for another host.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from clarion.errors import ClarionError, FileError

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS, READ_SECONDS = 15.0, 60.0
ATTEMPTS = 6  # in a row that bring nothing
CONNECTIONS = 3  # to a hub that nobody has reached yet: most often there is no network
FIRST_WAIT = 0.5  # seconds; each further one is twice as long
LONGEST_WAIT = 300.0  # that a server may ask for
MAX_JSON_BYTES = 64 << 20  # of a listing; those of the largest repositories have a few MB
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})

Refusal = Callable[["httpx.Response"], ClarionError]


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Report:
    """Who hears how far a download is.

    Attributes:
        progress: is called with what is fetched, bytes done, and bytes in all (0: nobody knows).
        note: is called with a sentence.
    """

    progress: Callable[[str, int, int], None] = _nothing
    note: Callable[[str], None] = _nothing


@contextmanager
def client() -> Iterator[httpx.Client]:
    """A client for one pull, which follows redirects."""
    import httpx

    from clarion import __version__

    timeout = httpx.Timeout(CONNECT_SECONDS, read=READ_SECONDS)
    headers = {"User-Agent": f"clarion/{__version__}", "Accept-Encoding": "identity"}
    try:
        with httpx.Client(timeout=timeout, headers=headers, follow_redirects=True, max_redirects=10) as made:
            yield made
    except (ValueError, ImportError) as error:  # of what the environment says of proxies
        raise FileError(f"the proxy that the environment names cannot be used: {error}") from error


class Retries:
    """Counts failures in a row, waits after each, and gives up after too many."""

    def __init__(self, what: str, report: Report) -> None:
        self._what = what
        self._report = report
        self._failures = 0

    def succeeded(self) -> None:
        """Something came: what fails next is a first failure."""
        self._failures = 0

    def failed(self, reason: str, wait: float | None = None, most: int = ATTEMPTS) -> None:
        """Waits before the next attempt, as long as the server asks for, if it does.

        Raises FileError after too many failures, or where the wait would be too long."""
        self._failures += 1
        if self._failures >= most:
            raise FileError(f"{self._what}: cannot be fetched: {reason}, {self._failures} times in a row")
        if wait is not None and wait > LONGEST_WAIT:
            raise FileError(f"{self._what}: cannot be fetched: {reason}; it asks to wait {wait:.0f} s")
        seconds = FIRST_WAIT * 2 ** (self._failures - 1) if wait is None else wait
        if seconds >= 2:
            self._report.note(f"{self._what}: {reason}; the next attempt comes in {seconds:.0f} s")
        time.sleep(seconds)


def must_wait(response: httpx.Response) -> bool:
    """Whether the same request may be answered later."""
    return response.status_code in _AGAIN


def wanted_wait(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait, if it does."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def status_text(response: httpx.Response) -> str:
    """How a server answered, as in "404 Not Found"."""
    return f"the server answers {response.status_code} {response.reason_phrase}".rstrip()


def fetch_json(
    client: httpx.Client, url: str, headers: Mapping[str, str], what: str, refusal: Refusal, report: Report
) -> tuple[bytes, Any]:
    """A small document, as it came and what it holds.

    Args:
        what: it is, for errors.
        refusal: the error for an answer that is none.

    Raises:
        FileError: nobody answers, or something else than JSON comes; and what `refusal` gives.
    """
    import httpx

    retries = Retries(what, report)
    while True:
        most = ATTEMPTS
        try:
            with client.stream("GET", url, headers=dict(headers)) as response:
                if must_wait(response):
                    reason, wait = status_text(response), wanted_wait(response)
                elif response.is_success:
                    return _json(response, url, what)
                else:
                    raise refusal(response)
        except httpx.TransportError as error:
            reason, wait = unreachable(url, error), None
            if isinstance(error, httpx.ConnectError):
                most = CONNECTIONS
        except (httpx.InvalidURL, httpx.TooManyRedirects, httpx.DecodingError) as error:
            raise FileError(f"{what}: cannot be fetched from {url}: {error}") from error
        retries.failed(reason, wait, most)


def _json(response: httpx.Response, url: str, what: str) -> tuple[bytes, Any]:
    data = bytearray()
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) > MAX_JSON_BYTES:
            raise FileError(f"{what}: {url}: found more than {MAX_JSON_BYTES} bytes, expected a listing")
    try:
        return bytes(data), json.loads(data)
    except (ValueError, RecursionError):
        kind = response.headers.get("Content-Type", "something else")
        raise FileError(
            f"{what}: {url}: found {kind}, expected JSON; is it the page of a network that wants a login?"
        ) from None


def unreachable(url: str, error: Exception) -> str:
    """Why nothing came from a server."""
    from urllib.parse import urlsplit

    reason = str(error) or type(error).__name__
    return f"{urlsplit(url).netloc.rpartition('@')[2]} cannot be reached ({reason})"
