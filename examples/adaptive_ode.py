"""Steps of adaptive size do not fit in a table: the same flow through diffrax, which chooses its own.

With z = x / alpha and r = sigma / alpha the flow is dz/dr = eps(z, r); a network of fdiff is all it takes.
Needs `pip install diffrax`.

    python examples/adaptive_ode.py --out adaptive.png
"""

import argparse

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import fdiff
from fdiff import images


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="adaptive.png")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--fixed-steps", type=int, default=200)
    arguments = parser.parse_args(argv)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(fdiff.DIGITS)
    labels = jnp.arange(10)
    plan = fdiff.EulerDiscreteScheduler.from_config(pipe.scheduler).plan(1000)
    ratios, times = jnp.asarray(plan.sigma[::-1]), jnp.asarray(plan.t[::-1])  # both rise

    def eps(log_r, z, params):
        """dz / d log r = r eps: smooth steps in the logarithm."""
        r = jnp.exp(log_r)
        t = jnp.interp(r, ratios, times)
        return r * pipe.unet.apply({"params": params["unet"]}, z / jnp.sqrt(1 + r**2), t, labels)

    noise = jax.random.normal(jax.random.key(0), (len(labels), 8, 8, 1))
    top, bottom = float(np.log(ratios[-1])), float(np.log(ratios[0]))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(eps), diffrax.Bosh3(), t0=top, t1=bottom, dt0=-0.1, y0=float(np.exp(top)) * noise, args=params,
        stepsize_controller=diffrax.PIDController(rtol=arguments.tolerance, atol=arguments.tolerance),
    )  # fmt: skip
    adaptive = solution.ys[0]
    network = jax.tree_util.Partial(pipe.unet.apply, {"params": params["unet"]}, class_labels=labels)
    fixed = fdiff.EulerDiscreteScheduler.from_config(pipe.scheduler).plan(arguments.fixed_steps)
    wanted = fdiff.sample(network, fixed, fixed.start * noise)
    difference = float(jnp.sqrt(jnp.mean((adaptive - wanted) ** 2)))
    count = int(solution.stats["num_steps"])
    print(f"{count} adaptive steps; {difference:.3f} from {arguments.fixed_steps} Euler steps")
    sheet = images.to_pil(adaptive) + images.to_pil(wanted)
    images.save(images.grid([images.enlarge(image, 32) for image in sheet], columns=10), arguments.out)
    print(f"wrote {arguments.out}: adaptive above, fixed below")
    return difference


if __name__ == "__main__":
    main()
