"""Learn a sampler: gradient descent on a plan's numbers, so that five network calls come nearer to a thousand.

The same as `fdiff train plan` with these options, and then how far each sampler is from a thousand steps, from noise
that it has not learned from:

    python examples/learn_a_sampler.py --out learned          # a quarter of an hour on one core
    fdiff generate learned --plan learned/plan.safetensors
    python examples/scheduler_table.py --plan learned/plan.safetensors --steps 5 10
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

import fdiff
from fdiff.training import loop
from fdiff.training.tasks import TASKS
from fdiff.training.tasks.plan import FILE, PlanSettings, load, plans, runs


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="learned", type=Path)
    parser.add_argument("--model", default=str(fdiff.DIGITS))
    parser.add_argument("--timesteps", default="999,820,580,330,100", help="those of the calls at first")
    parser.add_argument("--runs", type=int, default=512, help="to learn from")
    parser.add_argument("--run-steps", type=int, default=64)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--exact-steps", type=int, default=1000, help="of DDIM, to compare with")
    parser.add_argument("--fresh", type=int, default=64, help="runs to compare")
    arguments = parser.parse_args(argv)
    calls = len(arguments.timesteps.split(","))
    settings = PlanSettings(
        model=arguments.model, calls=calls, timesteps=arguments.timesteps, runs=arguments.runs,
        run_steps=arguments.run_steps, steps=arguments.updates, batch_size=arguments.batch_size, guidance_scale=1.0,
        sample_every=0,
    )  # fmt: skip
    with tqdm(total=settings.steps, unit="update") as bar:
        loop.train(TASKS["plan"], settings, None, arguments.out, report=lambda after: bar.update())

    model = load(settings)
    solver = fdiff.DPMSolverMultistepScheduler.from_config(model.pipe.scheduler)
    tables = {f"DPM-Solver++(2M), {n} calls": solver.plan(n) for n in (calls, 2 * calls)}
    tables["where it began"] = plans(settings, model.pipe.scheduler)[0]
    tables["learned"] = fdiff.load_plan(arguments.out / FILE)
    exact = fdiff.DDIMScheduler.from_config(model.pipe.scheduler).plan(arguments.exact_steps)
    fresh = dataclasses.replace(settings, seed=1, runs=arguments.fresh)
    squares = {name: [] for name in tables}
    for _, arrays in runs(model, fresh, exact):
        for name, table in tables.items():
            x = fdiff.sample(model.network(model.params, arrays["label"]), table, table.start * arrays["x"])
            squares[name].append(np.mean((x - arrays["wanted"]) ** 2))
    errors = {name: float(np.sqrt(np.mean(found))) for name, found in squares.items()}
    for name, value in errors.items():
        print(f"{name}: {value:.4f} from {arguments.exact_steps} steps, from fresh noise")
    return errors


if __name__ == "__main__":
    main()
