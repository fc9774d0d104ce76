"""What a person, or a token that stands for one, may do at central."""

from enum import StrEnum


class Role(StrEnum):
    """Each may do what those before it may: see; move nodes and settle conflicts; change how central is set up."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def reaches(self, other: "Role") -> bool:
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(other)
