"""Files of rows, read one row at a time: JSON Lines, JSON lists, CSV, Parquet and plain text. Knows no task.

A row comes with its place in the file: the line in JSON Lines and CSV, the row in a JSON list and Parquet; all count
from 1. No more than one row (Parquet: one batch of rows) is in memory at a time.
"""
