"""Parquet files, here or on the Hub, read in parts: labels by column, images by row group or page.

`split` plans what to read, of a `local` or `remote` file; `pages` decodes, and `listing` says which files there are.
"""
