"""What several tests, and a benchmark, need: small data, damaged and foreign files, the command as users run it."""

import pytest

pytest.register_assert_rewrite("helpers.commands")  # its assertions show what differs, as those of tests do
