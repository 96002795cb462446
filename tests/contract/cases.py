"""All cases."""

from typing import Final

from tests.contract.faults import FAULTS
from tests.contract.leaving import LEAVING
from tests.contract.passing import PASSING
from tests.contract.refused import REFUSED
from tests.contract.stand import Case

CASES: Final[tuple[Case, ...]] = tuple(
    case for group in (PASSING, REFUSED, LEAVING, FAULTS) for case in group.cases
)
