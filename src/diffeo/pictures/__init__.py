"""Pictures: which flow, trained how, and what is said of it."""
