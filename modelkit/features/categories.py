"""The host's category names, brought to the eleven of the contract. Pure."""

from __future__ import annotations

from functools import lru_cache

from modelkit.features.state import CATEGORIES

_ALIASES = {
    "grocery": "groceries",
    "food": "groceries",
    "supermarket": "groceries",
    "dining": "dine_out",
    "dining_out": "dine_out",
    "restaurant": "dine_out",
    "restaurants": "dine_out",
    "eating_out": "dine_out",
    "leisure": "entertainment",
    "bill": "bills",
    "utilities": "bills",
    "rent": "bills",
    "housing": "bills",
    "transportation": "transport",
    "travel": "transport",
    "retail": "shopping",
    "clothing": "shopping",
    "healthcare": "health",
    "medical": "health",
    "gym": "fitness",
    "sport": "fitness",
    "saving": "savings",
    "investment": "savings",
    "salary": "income",
    "wages": "income",
}
_INDEX = {name: index for index, name in enumerate(CATEGORIES)}
_OTHER = _INDEX["other"]


@lru_cache(maxsize=4096)
def category_index(name: str) -> int:
    """Return the index in :data:`CATEGORIES` of a host's category; unknown names are ``other``."""
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    return _INDEX.get(_ALIASES.get(plain, plain), _OTHER)
