"""Programs as a compiler sees them, also for devices that are not there: memory, work, time, communication."""
