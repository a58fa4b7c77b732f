"""A simulated host: it requests recommendations and answers them by a frozen response model. Its data is labelled as simulated."""
