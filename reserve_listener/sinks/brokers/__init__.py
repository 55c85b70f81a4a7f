"""What the sinks for message brokers share: settings, names made of an event's ids, and what may be said of an error."""
