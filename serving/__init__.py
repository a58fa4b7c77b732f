"""The HTTP replica: loaded versions, swaps without a lost request, predictions and their log."""
