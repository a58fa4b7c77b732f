"""The data that every room agrees about: messages, topics, codec, tables, API shapes. No input or output."""
