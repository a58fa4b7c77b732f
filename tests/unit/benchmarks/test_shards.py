"""How the statements of a topic are dealt out to two servers."""

from __future__ import annotations

from benchmarks.shards import halves
from benchmarks.statements import Transaction


def test_every_transaction_is_in_one_half_and_those_of_a_partition_stay_in_order() -> None:
    """A half would lack the rows that its updates need, or statements would be run twice."""
    transactions = [Transaction(partition=number % 4, records=10 + number) for number in range(40)]
    even, odd = halves(transactions)
    assert {transaction.partition for transaction in even.transactions} == {0, 2}
    assert {transaction.partition for transaction in odd.transactions} == {1, 3}
    assert even.records + odd.records == sum(transaction.records for transaction in transactions)
    for half in (even, odd):
        assert half.transactions == sorted(half.transactions, key=lambda transaction: transaction.records)
