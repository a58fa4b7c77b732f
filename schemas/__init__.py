"""The data that every service agrees about: messages, topics, codec, tables, API shapes. No input or output."""
