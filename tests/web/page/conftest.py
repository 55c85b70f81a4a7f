"""A browser for the session, and a page in it for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.web.page import chromium

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.web.page.chromium import Page


@pytest.fixture(scope="session")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running Chromium; without one the test is skipped."""
    if chromium.PROGRAM is None:
        pytest.skip("needs Debian's packages chromium and fonts-noto-cjk")
    with chromium.started(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.fixture
async def page(devtools: str) -> AsyncIterator[Page]:
    """A page in a profile of its own. At the end nobody has complained in its console."""
    async with chromium.page_in(devtools) as page:
        yield page
        # The site has ended before the page, and with it the stream that the page listens to.
        assert [one for one in page.complaints if "/api/v1/stream" not in one] == []
