"""The models: one package each, found by entry point. Nothing outside imports one by name."""
