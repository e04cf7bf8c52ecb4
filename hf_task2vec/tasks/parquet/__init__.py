"""Parquet files, here or on the Hub, read in parts: labels by column, images by row group or page.

`split` plans what to read, of `local` or `remote` files; `pages` decodes.
"""
