"""What can be trained: a file each."""

from fdiff.training.recipe import Task
from fdiff.training.tasks.class_conditional import class_conditional
from fdiff.training.tasks.controlnet import controlnet
from fdiff.training.tasks.dreambooth import dreambooth
from fdiff.training.tasks.latent import latent
from fdiff.training.tasks.lcm import lcm
from fdiff.training.tasks.lora import lora
from fdiff.training.tasks.molecules import molecule
from fdiff.training.tasks.plan import plan
from fdiff.training.tasks.text_to_image import text_to_image
from fdiff.training.tasks.textual_inversion import textual_inversion
from fdiff.training.tasks.unconditional import unconditional
from fdiff.training.tasks.vae import vae

TASKS: dict[str, Task] = {
    "class-conditional": class_conditional,
    "controlnet": controlnet,
    "dreambooth": dreambooth,
    "latent": latent,
    "lcm": lcm,
    "lora": lora,
    "molecules": molecule,
    "plan": plan,
    "text-to-image": text_to_image,
    "textual-inversion": textual_inversion,
    "unconditional": unconditional,
    "vae": vae,
}
