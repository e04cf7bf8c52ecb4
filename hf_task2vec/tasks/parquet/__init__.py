"""Parquet files of the Hub, read in parts: labels by column, images by page.

`remote` plans what to read of a dataset, `shards` keeps the footers and columns of its files, `pages` decodes.
"""
