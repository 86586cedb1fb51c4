"""What is asked and how an answer is judged.

A task is a module that defines ``TASK``, a `quantrust.tasks.task.Task`; it is found by its name.
"""
