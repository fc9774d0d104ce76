"""What the tests of the simulation share."""

from tests.support.postgres import postgres as postgres
