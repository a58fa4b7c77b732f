"""All SQL of the services, one file a subject; they take a connection or a unit of work and never commit."""
