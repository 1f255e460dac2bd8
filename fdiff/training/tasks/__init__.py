"""What can be trained: a file each."""

from fdiff.training.recipe import Task
from fdiff.training.tasks.class_conditional import class_conditional
from fdiff.training.tasks.unconditional import unconditional

TASKS: dict[str, Task] = {"class-conditional": class_conditional, "unconditional": unconditional}
