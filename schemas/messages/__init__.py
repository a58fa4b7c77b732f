"""All messages except the behavioural events, as frozen structs. Events are past tense, commands imperative."""
