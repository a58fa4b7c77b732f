"""The data on which all services agree: messages, topics, codec, tables, API shapes. No input or output."""
