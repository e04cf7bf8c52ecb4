"""The command line: words in, a printed answer out.

``hf-task2vec select|embed|distance|map|index …``, which is also ``hf task2vec …``. Only click is imported at start; a
command imports what it needs when it runs, after ``--endpoint`` and ``--offline`` have set the variables that the
Hugging Face libraries read at their import.
"""

from hf_task2vec.cli.commands import cli, main

__all__ = ["cli", "main"]
