"""Small data sets in the form of the real ones, made by the tests themselves: for machines that have no folder of sets.

``data_folder`` gives the real folder where it is there, and else one with ``onlineretail``, ``oulad`` and ``heartsteps``
of about 6,000 events each. Their rows are drawn from a fixed seed: every run sees the same ones.
"""

from __future__ import annotations

import csv
import datetime as dt
import functools
import gzip
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from stack.replay.settings import ReplaySettings

REAL = ReplaySettings().data
SEED = 20
CUSTOMERS, INVOICES, GOODS = 60, 6_000, 300
STUDENTS, SUBMISSIONS, MODULE_DAYS = 700, 6, 240
WALKERS, WALKING_DAYS, SLOTS = 30, 42, 5
YEAR_SECONDS = 365 * 86_400
OPENS = dt.datetime(2010, 12, 1, 8, 0, tzinfo=dt.UTC)
FIRST_WALK = dt.datetime(2015, 7, 20, 16, 0, tzinfo=dt.UTC)
PRESENTATIONS = ("2013B", "2013J", "2014B")
RESULTS = ("Pass", "Distinction", "Fail", "Withdrawn")
DECISION_COLUMNS = (
    "user decision t_utc slot available sent action response response_t_utc in_transit temperature_c precip_chance "
    "steps30_pre steps60_pre steps30_post"
)
ANSWERS = ("good", "bad", "snoozed_for_4_hours", "")

needs_real_sets = pytest.mark.skipif(
    not REAL.is_dir(), reason=f"needs the real data sets, which are not in {REAL}; FINCOACH_DATA names their folder"
)

Row = Sequence[object]
Generator = np.random.Generator


def has_real_sets() -> bool:
    """Return whether this machine has the folder of real sets."""
    return REAL.is_dir()


def data_folder() -> Path:
    """Return the folder of real sets, or of small ones where it is not there."""
    return REAL if has_real_sets() else small_folder()


def small_folder() -> Path:
    """Return a folder of small sets, which is gone when the process ends."""
    return Path(_written().name)


@functools.cache
def _written() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="fincoach-small-sets-")
    write(Path(folder.name))
    return folder


def write(folder: Path) -> None:
    """Write the small sets into ``folder``."""
    courses = [("AAA", presentation, MODULE_DAYS) for presentation in PRESENTATIONS]
    students = list(_students(np.random.default_rng(SEED)))
    tables: dict[str, tuple[str, Iterable[Row]]] = {
        "onlineretail/lines": ("InvoiceNo StockCode Quantity InvoiceDate UnitPrice CustomerID Country", _lines()),
        "oulad/courses": ("code_module code_presentation module_presentation_length", courses),
        "oulad/enrolments": (
            "code_module code_presentation id_student final_result",
            [(*student[:3], student[3]) for student in students],
        ),
        "oulad/registrations": (
            "code_module code_presentation id_student date_registration date_unregistration",
            [(*student[:3], *student[4:]) for student in students],
        ),
        "oulad/submissions": (
            "id_assessment id_student date_submitted is_banked score code_module code_presentation",
            _submissions(students),
        ),
        "heartsteps/decisions": (
            DECISION_COLUMNS,
            _decisions(),
        ),
    }
    for name, (columns, rows) in tables.items():
        path = folder / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns.split(), *rows])


def _lines() -> Iterator[Row]:
    """Yield the lines of invoices in the order of time; some invoices are refunds, and some are of nobody."""
    generator = np.random.default_rng(SEED)
    loyalty = 1.0 / np.arange(1, CUSTOMERS + 1) ** 0.7  # few customers buy often, as everywhere
    customers = 10_000 + generator.choice(CUSTOMERS, INVOICES, p=loyalty / loyalty.sum())
    seconds = np.sort(generator.uniform(0, YEAR_SECONDS, INVOICES))
    for number, second in enumerate(seconds.tolist()):
        refund = "C" if generator.random() < 0.05 else ""
        customer = "" if generator.random() < 0.02 else int(customers[number])
        written_at = f"{OPENS + dt.timedelta(seconds=int(second)):%Y-%m-%d %H:%M:%S}"
        for stock in generator.choice(GOODS, int(generator.integers(1, 4)), replace=False).tolist():
            code = "POST" if stock < GOODS // 10 else f"{20_000 + stock}"
            quantity = int(generator.integers(1, 12)) * (-1 if refund else 1)
            price = round(0.5 + float(generator.gamma(2.0, 2.0)), 2)
            yield f"{refund}{500_000 + number}", code, quantity, written_at, price, customer, "United Kingdom"


def _students(generator: Generator) -> Iterator[Row]:
    for number in range(STUDENTS):
        result = str(generator.choice(RESULTS, p=(0.4, 0.07, 0.23, 0.3)))
        left_on = int(generator.integers(20, MODULE_DAYS - 20)) if result == "Withdrawn" else ""
        registered_on = -int(generator.integers(1, 100))
        yield "AAA", PRESENTATIONS[number % 3], 30_000 + number, result, registered_on, left_on


def _submissions(students: Sequence[Row]) -> Iterator[Row]:
    """Yield what each student handed in while enrolled."""
    generator = np.random.default_rng(SEED)
    for module, presentation, student, result, _, left_on in students:
        last_day = left_on if isinstance(left_on, int) else MODULE_DAYS
        for assessment in range(1, SUBMISSIONS + 1):
            day = assessment * MODULE_DAYS // (SUBMISSIONS + 1) + int(generator.integers(-5, 5))
            score = int(np.clip(generator.normal(45 if result == "Fail" else 72, 12), 0, 100))
            if day < last_day:
                yield 1_000 + assessment, student, day, "False", score, module, presentation


def _decisions() -> Iterator[Row]:
    """Yield decision points, at each of which the lot chose, and what people answered."""
    generator = np.random.default_rng(SEED)
    for walker in range(1, WALKERS + 1):
        for decision in range(WALKING_DAYS * SLOTS):
            day, slot = divmod(decision, SLOTS)
            decided_at = FIRST_WALK + dt.timedelta(days=day, hours=2 * slot, minutes=walker)
            is_available = bool(generator.random() < 0.8)
            action = str(generator.choice(("active", "sedentary", "none"), p=(0.3, 0.3, 0.4)))
            answer = str(generator.choice(ANSWERS, p=(0.3, 0.1, 0.1, 0.5))) if action != "none" else ""
            answered_at = f"{decided_at + dt.timedelta(minutes=3):%Y-%m-%d %H:%M:%S}" if answer else ""
            steps = generator.integers(0, 400, 3).tolist()
            yield (
                *(walker, decision, f"{decided_at:%Y-%m-%d %H:%M:%S}", slot, is_available),
                *(action != "none", action, answer, answered_at, False, 20.0, 0.1, *steps),
            )
