"""Draw molecules, say how good they are, and write them, a picture of each and how the first one came to be.

    fdiff convert generative_model_ema.npy edm-qm9        # the checkpoint that EDM's authors published
    python examples/draw_molecules.py edm-qm9 --count 100 --out molecules
"""

import argparse
from pathlib import Path

import jax

import fdiff
from fdiff import images, molecules
from fdiff.bars import bar


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder or a Hub id")
    parser.add_argument("--count", type=int, default=9)
    parser.add_argument("--steps", type=int, help="all of the training's if not given")
    parser.add_argument("--frames", type=int, default=20, help="of the trajectory")
    parser.add_argument("--out", type=Path, default=Path("molecules"))
    arguments = parser.parse_args(argv)
    pipe, params = fdiff.DiffusionPipeline.from_pretrained(arguments.model)
    run = pipe.steps(params, batch_size=arguments.count, num_inference_steps=arguments.steps, key=jax.random.key(0))
    finish, every, frames = run.finish(), max(1, len(run) // arguments.frames), []
    for i, (state, x0) in enumerate(bar(run)):  # noqa: B007  the last state is drawn
        if i % every == 0 or i == len(run) - 1:
            frames.append(finish(x0).molecules.take(slice(1)))
    drawn = finish(state.x).molecules
    arguments.out.mkdir(parents=True, exist_ok=True)
    molecules.write(arguments.out / "drawn.sdf", drawn)
    molecules.write(arguments.out / "trajectory.xyz", molecules.concatenate(frames))
    images.grid(molecules.draw(drawn)).save(arguments.out / "drawn.png")
    quality = molecules.evaluate(drawn)
    print(", ".join(f"{name} {100 * share:.1f} %" for name, share in quality._asdict().items()))
    return quality


if __name__ == "__main__":
    main()
