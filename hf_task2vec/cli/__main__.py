"""``python -m hf_task2vec.cli``, which ``accelerate launch -m hf_task2vec.cli`` starts in every process."""

from hf_task2vec.cli import main

if __name__ == "__main__":
    main()
