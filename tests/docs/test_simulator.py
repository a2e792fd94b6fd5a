"""What docs/simulator.md shows does what it says."""

from __future__ import annotations

import pytest

from tests.docs.test_readme import ROOT, blocks

pytest_plugins = ["pytester"]


def test_the_tests_that_are_shown_pass(pytester: pytest.Pytester) -> None:
    shown = blocks("python", (ROOT / "docs/simulator.md").read_text())
    pytester.makepyfile("\n\n".join(shown))
    result = pytester.runpytest_inprocess("-o", "asyncio_default_fixture_loop_scope=function", "--strict-markers")
    # One of them is a test of nine pairs.
    result.assert_outcomes(passed="".join(shown).count("def test_") + 8)
