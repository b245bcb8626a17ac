"""The report page of a sweep: tables, charts, statistics and sentences."""
